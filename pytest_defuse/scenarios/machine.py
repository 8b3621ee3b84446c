"""The part of a scenario that people do not read; written once, and referenced from scenario.yaml by its hash."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, NonNegativeInt, ValidationError, model_validator

from pytest_defuse.runtime.json_text import parse_json
from pytest_defuse.runtime.validation import invalid_values, shortened
from pytest_defuse.scenarios.problems import (
    Problem,
    StoreError,
    check_size,
    first_problems,
    store_error,
    without_lfs_pointer,
)
from pytest_defuse.scenarios.schema import (
    FORMAT,
    SPLITS,
    ClassName,
    Format,
    Record,
    Sha256,
    Share,
    SheetRecord,
    Split,
    inconsistent,
)

MAX_BYTES = 2**24
"""Maximum size of a machine.json that is read, 16 MiB: a covariance of 800 dimensions fits."""

MAX_PARTS = 2**16
"""Maximum number of keys and lists in a machine.json: a covariance of 800 dimensions has 801 lists."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FIRST_ERROR = Field(fail_fast=True)
"""Of a long list, the first error is reported: millions of errors do not fit in memory."""
Numbers = Annotated[tuple[Finite, ...], FIRST_ERROR]
T = TypeVar("T")
PerTile = Annotated[tuple[T, ...], FIRST_ERROR]


class Tiles(Record):
    """What is known about each tile of a sheet, one value per tile in reading order; None where it was not recorded.

    Attributes:
        predicted: the class that the model predicted at discovery.
        labels: the class that the tile shows, for a scenario with ``labels: per image``.
        sources: sha256 of the image that the tile shows, for images that were not generated.
    """

    predicted: PerTile[ClassName] | None = None
    labels: PerTile[ClassName] | None = None
    sources: PerTile[Sha256] | None = None


class LatentRegion(Record):
    """The Gaussian in latent space from which the tiles were drawn; ``kind`` tells one sort of region from another.

    Attributes:
        generator: sha256 of the decoder.
        weight: mixture weight, in [0, 1].
        tau: scale of the covariance when codes are drawn (Defuse paper, section 3.3).
        mean, covariance: of d latent dimensions, d and d x d numbers.
    """

    kind: Literal["latent"] = "latent"
    generator: Sha256
    weight: Share
    tau: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    mean: Numbers
    covariance: Annotated[tuple[Numbers, ...], FIRST_ERROR]

    @model_validator(mode="after")
    def _is_a_covariance(self) -> Self:
        size = len(self.mean)
        if len(self.covariance) != size or any(len(row) != size for row in self.covariance):
            raise inconsistent("covariance", f"covariance must be {size} x {size}, as mean has {size} numbers")
        matrix = np.array(self.covariance)
        if not np.array_equal(matrix, matrix.T):
            row, column = np.argwhere(matrix != matrix.T)[0]
            raise inconsistent("covariance", f"covariance is not symmetric: see row {row}, column {column}")
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            raise inconsistent("covariance", "covariance is not positive definite: no Gaussian has it") from None
        return self


class Evidence(Record):
    """Why a label is proposed: for a reviewer to consider, never a decision.

    Attributes:
        nearest_images: positions in the training set of the images nearest to the region's mean, nearest first.
        nearest_labels: their labels.
        nearest_distances: their distances in latent space, in standard deviations of the training codes.
        source_labels: training images around which the region's failures were drawn, counted by label.
    """

    nearest_images: Annotated[tuple[NonNegativeInt, ...], FIRST_ERROR]
    nearest_labels: Annotated[tuple[ClassName, ...], FIRST_ERROR]
    nearest_distances: Annotated[tuple[NotNegative, ...], FIRST_ERROR]
    source_labels: dict[str, NonNegativeInt]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if not len(self.nearest_images) == len(self.nearest_labels) == len(self.nearest_distances):
            words = "nearest_images, nearest_labels and nearest_distances differ in length"
            raise inconsistent("nearest_images", words)
        return self

    def in_words(self, label: str | None) -> list[str]:
        """How far the evidence supports a label, one sentence per kind of evidence."""
        sentences = []
        for labels, words in (
            (Counter(self.nearest_labels), "of the {} nearest training images are labelled"),
            (Counter(self.source_labels), "of {} failures were drawn around training images labelled"),
        ):
            if label is not None and labels.total():
                rival, count = labels.most_common(1)[0]
                against = f", against {count} labelled {rival}" if count > labels[label] else ""
                sentences.append(f"{labels[label]} {words.format(labels.total())} {label}{against}")
        return sentences


class MachineRecord(Record):
    """machine.json of a scenario."""

    format: Format
    correction: Tiles = Tiles()
    held_out: Tiles = Tiles()
    region: LatentRegion | None = None
    evidence: Evidence | None = None

    def tiles(self, split: Split) -> Tiles:
        """The tiles of a split."""
        return self.correction if split == "correction" else self.held_out

    @property
    def text(self) -> str:
        """The file's text, one line per key, which reads back as this record."""
        lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in self.model_dump().items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @property
    def sha256(self) -> str:
        """sha256 of the parsed content, serialised with sorted keys and without spaces; layout does not matter."""
        return json_hash(json.loads(self.text))

    def class_names(self) -> Iterable[tuple[tuple[str, str], str]]:
        """Every class that scenario.yaml does not name, each with the keys that lead to it."""
        for split in SPLITS:
            for name in dict.fromkeys(self.tiles(split).labels or ()):
                yield (split, "labels"), name
        if self.evidence is not None:
            for key in ("nearest_labels", "source_labels"):
                for name in getattr(self.evidence, key):
                    yield ("evidence", key), name


def json_hash(content: Any) -> str:
    """sha256 of a JSON value in canonical form: sorted keys, no spaces, ASCII."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def counts(sheet: SheetRecord, tiles: Tiles) -> dict[str, int]:
    """Tiles that are not excluded by the class that the model predicted at discovery, most frequent first.

    Where predictions were counted but not recorded tile by tile, excluded tiles count too.
    """
    if tiles.predicted is None:
        return dict(Counter(sheet.predicted).most_common())
    return dict(Counter(tiles.predicted[tile] for tile in sheet.kept).most_common())


def check_format(number: int, file: str) -> None:
    """Check that this version knows the format of a file."""
    if number > FORMAT:
        raise store_error(
            file,
            f"has format {shortened(str(number))}, but this pytest-defuse reads formats up to {FORMAT}: upgrade it",
        )


def parse_machine(data: bytes, file: str, sha256: str) -> MachineRecord:
    """The record in ``data``, the content of ``file``."""
    check_size(len(data), MAX_BYTES, file)
    try:
        content = parse_json(without_lfs_pointer(data, file).decode("utf-8-sig"), MAX_PARTS)
        hashed = json_hash(content)
    except (ValueError, RecursionError) as error:
        raise store_error(file, "is not valid JSON: restore it from git") from error
    number = content.get("format") if isinstance(content, dict) else None
    check_format(number if isinstance(number, int) else FORMAT, file)
    if hashed != sha256:
        raise store_error(file, "does not match the hash in scenario.yaml: restore both from the same commit")
    try:
        return MachineRecord.model_validate(content)
    except ValidationError as error:
        found = (Problem(file, f"{'.'.join(map(str, keys))}: {words}") for keys, words in invalid_values(error))
        raise StoreError(first_problems(found)) from error
