"""What the files of a store may hold: format 1, frozen.

:mod:`pytest_defuse.scenarios.documents` reads and writes them, :mod:`pytest_defuse.scenarios.migrations`
knows the formats before this one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.bounds import Bounds

FORMAT = 1
MOST_PIXELS = 2**26
"""Pixels of a sheet, at most: 200 MB once decoded. No file can ask for more memory than that."""

Status = Literal["candidate", "accepted", "rejected"]
Split = Literal["correction", "held_out"]
SPLITS: tuple[Split, Split] = ("correction", "held_out")

Format = Annotated[int, Field(ge=FORMAT, le=FORMAT), WithJsonSchema({"const": FORMAT})]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
FeatureKey = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
FeatureNumber = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
FeatureName = Annotated[str, Field(min_length=1, max_length=80)]
ClassName = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean"]})]
"""A class by its name; ``label: 3`` typed by hand is the name "3", so editors shall not complain of it."""
ScenarioId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=48)]
Annotator = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._@+-]*$", max_length=64)]
"""Who votes. It is a file's name too, so it is in lower case: some file systems know no other."""


def _wrong(key: str, words: str) -> PydanticCustomError:
    """An error of several values together, reported at the line of ``key``."""
    return PydanticCustomError("together", "{words}", {"key": key, "words": words})


class Record(BaseModel):
    """A file of a store, or a part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(Record):
    """A whole file.

    Attributes:
        schema_name: what its JSON Schema is called.
        schema_file: where that lies, seen from the file's folder.
    """

    schema_name: ClassVar[str]
    schema_file: ClassVar[str]

    format: Format


class FailureRate(Record):
    """Of ``drawn`` fresh draws from the region, ``failed`` failed; low and high: Wilson's 95% interval."""

    failed: Count
    drawn: Annotated[int, Field(ge=1)]
    low: Share
    high: Share

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.failed > self.drawn:
            raise _wrong("failed", f"failed is {self.failed}, but only {self.drawn} were drawn")
        if self.low > self.high:
            raise _wrong("low", f"low is {self.low:g}, above high, which is {self.high:g}")
        return self


class Sheet(Record):
    """One contact sheet: how many tiles, what the model said of them, and the hash of their pixels.

    Tiles are counted from 0 in reading order. ``predicted`` counts them by the class that the model took them
    for, ``predicted_tiles`` says which they are (null where that was not recorded). ``excluded`` lists the
    tiles that a reviewer does not want counted.
    """

    images: Annotated[int, Field(ge=1)]
    sha256: Sha256
    predicted: dict[str, Count]
    predicted_tiles: dict[str, tuple[Count, ...]] | None = None
    excluded: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        total = sum(self.predicted.values())
        if total != self.images:
            raise _wrong("predicted", f"predicted counts {total} tiles, but images is {self.images}")
        if self.predicted_tiles is not None:
            listed = sorted(tile for tiles in self.predicted_tiles.values() for tile in tiles)
            if listed != list(range(self.images)):
                raise _wrong("predicted_tiles", f"predicted_tiles must name each tile from 0 to {self.images - 1} once")
            if {name: len(tiles) for name, tiles in self.predicted_tiles.items()} != self.predicted:
                raise _wrong("predicted_tiles", "predicted_tiles and predicted do not count the same tiles")
        return self

    @model_validator(mode="after")
    def _tiles_exist(self) -> Self:
        beyond = [tile for tile in self.excluded if tile >= self.images]
        if beyond:
            raise _wrong("excluded", f"excluded names tile {beyond[0]}, but the sheet has tiles 0 to {self.images - 1}")
        if len(set(self.excluded)) == self.images:
            raise _wrong("excluded", "excluded names every tile: reject the scenario instead")
        return self

    @property
    def kept(self) -> list[int]:
        """The tiles that count, in reading order."""
        excluded = set(self.excluded)
        return [tile for tile in range(self.images) if tile not in excluded]

    @property
    def prediction_of(self) -> dict[int, str]:
        """The class that the model took each tile for; empty where that was not recorded."""
        return {tile: name for name, tiles in (self.predicted_tiles or {}).items() for tile in tiles}

    @property
    def counts(self) -> dict[str, int]:
        """How many of the tiles that count the model took for each class, most first.

        Where it was not recorded which tiles these are, excluded tiles cannot be told from others and count.
        """
        predictions = self.prediction_of
        counted = Counter(predictions[tile] for tile in self.kept) if predictions else Counter(self.predicted)
        return dict(counted.most_common())

    def accuracy(self, label: str) -> float:
        """The share of the tiles that count which the model took for ``label``, in [0, 1]."""
        counts = self.counts
        return counts.get(label, 0) / sum(counts.values())


class Sheets(Record):
    """The two splits: pictures to finetune on, and pictures that only the gate sees."""

    correction: Sheet
    held_out: Sheet


class Tile(Record):
    """Mode (L or RGB) and size, in pixels, of every tile."""

    mode: Literal["L", "RGB"]
    width: Annotated[int, Field(ge=1, le=1024)]
    height: Annotated[int, Field(ge=1, le=1024)]


class Evidence(Record):
    """Why a label is proposed: for a reviewer to weigh, never a decision.

    The training images nearest to the region's mean in latent space, nearest first: their positions in the
    training set, labels, and distances (in standard deviations of the training codes); and the labels of the
    training images that the region's failures were drawn around, counted.
    """

    nearest_images: tuple[Count, ...]
    nearest_labels: tuple[ClassName, ...]
    nearest_distances: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
    source_labels: dict[str, Count]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        lengths = {len(part) for part in (self.nearest_images, self.nearest_labels, self.nearest_distances)}
        if len(lengths) != 1:
            raise _wrong("nearest_images", "nearest_images, nearest_labels and nearest_distances differ in length")
        return self

    def in_words(self, label: str) -> list[str]:
        """How far the evidence supports a label, a sentence each."""
        said = []
        if self.nearest_labels:
            nearest = Counter(self.nearest_labels)
            said.append(
                f"{nearest[label]} of the {nearest.total()} nearest training images are labelled {label}"
                f"{_rival(nearest, label)}"
            )
        sources = Counter(self.source_labels)
        if sources.total():
            said.append(
                f"{sources[label]} of {sources.total()} failures were drawn around training images labelled {label}"
                f"{_rival(sources, label)}"
            )
        return said


def _rival(counts: Counter[str], label: str) -> str:
    """What speaks for another label more than for this one."""
    name, count = counts.most_common(1)[0]
    return f", against {count} labelled {name}" if count > counts[label] else ""


class LatentRegion(Record):
    """The Gaussian in latent space that the pictures come from; ``generator`` is the decoder's hash."""

    generator: Sha256
    weight: Share
    tau: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    mean: tuple[Finite, ...]
    covariance: tuple[tuple[Finite, ...], ...]

    @model_validator(mode="after")
    def _is_a_covariance(self) -> Self:
        size = len(self.mean)
        if len(self.covariance) != size or any(len(row) != size for row in self.covariance):
            raise _wrong("covariance", f"covariance must be {size} x {size}, as mean has {size} numbers")
        matrix = np.array(self.covariance)
        if not np.array_equal(matrix, matrix.T):
            row, column = np.argwhere(matrix != matrix.T)[0]
            raise _wrong("covariance", f"covariance is not symmetric: see row {row}, column {column}")
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            raise _wrong("covariance", "covariance is not positive definite: no Gaussian has it") from None
        return self


class Method(Record):
    """How the scenario was found; a failure mode of Barlow carries its rule and its group's error rate."""

    name: Literal["defuse", "barlow"]
    rule: str | None = None
    base_error_rate: Share | None = None


class Provenance(Record):
    """What the scenario was found on; hashes are sha256 of the weights and of the training images."""

    model: Sha256
    data: Sha256
    seed: int
    versions: dict[str, str]


def installed_versions() -> dict[str, str]:
    """The versions that :class:`Provenance` records."""
    return {name: version(name) for name in ("pytest-defuse", "torch")}


class ScenarioRecord(FileRecord):
    """scenario.yaml: one scenario, whatever its status.

    ``bounds`` are what the gate asks of this scenario, whatever a test's marker says.
    """

    schema_name = "scenario"
    schema_file = "../.schema/scenario.json"

    id: ScenarioId
    status: Status
    label: ClassName | None
    proposed_label: ClassName
    notes: str = ""
    bounds: dict[str, int | float] = {}
    failure_rate: FailureRate
    tile: Tile
    sheets: Sheets
    method: Method
    evidence: Evidence | None = None
    provenance: Provenance
    region: LatentRegion | None

    @field_validator("bounds")
    @classmethod
    def _bounds_are_known(cls, given: dict[str, int | float]) -> dict[str, int | float]:
        try:
            Bounds.of(given, "the scenario")
        except DefuseError as error:
            raise ValueError(str(error)) from None
        return given

    @model_validator(mode="after")
    def _accepted_has_label(self) -> Self:
        if self.status == "accepted" and self.label is None:
            raise _wrong("label", "status is accepted but label is empty: write the class that the pictures show")
        return self

    @model_validator(mode="after")
    def _pictures_are_bounded(self) -> Self:
        for split in SPLITS:
            pixels = self.sheet(split).images * self.tile.width * self.tile.height
            if pixels > MOST_PIXELS:
                raise _wrong("sheets", f"{split} would have {pixels:,} pixels; at most {MOST_PIXELS:,} are read")
        return self

    def sheet(self, split: Split) -> Sheet:
        """The sheet of a split."""
        return self.sheets.correction if split == "correction" else self.sheets.held_out

    def class_names(self) -> Iterable[tuple[tuple[str, ...], str]]:
        """Every class that the record names, each with the keys that lead to it."""
        yield ("proposed_label",), self.proposed_label
        if self.label is not None:
            yield ("label",), self.label
        for split in SPLITS:
            for key in ("predicted", "predicted_tiles"):
                for name in getattr(self.sheet(split), key) or {}:
                    yield ("sheets", split, key, name), name
        if self.evidence is not None:
            for name in self.evidence.nearest_labels:
                yield ("evidence", "nearest_labels"), name
            for name in self.evidence.source_labels:
                yield ("evidence", "source_labels", name), name


class Budgets(Record):
    """What a store should not exceed, so that its repository stays small; ``verify`` warns of what does."""

    sheet_bytes: Annotated[int, Field(ge=1)] = 2**20
    tiles: Annotated[int, Field(ge=1)] = 256
    scenarios: Annotated[int, Field(ge=1)] = 100


class Voting(Record):
    """How votes become a decision.

    Attributes:
        rho: a scenario is one only if more than this share of its images is not what the model says.
        low_agreement: a mean agreement below this is pointed out.
        count_models: whether models' votes count like people's.
    """

    rho: Share = 0.5
    low_agreement: Share = 0.7
    count_models: bool = False


class StoreRecord(FileRecord):
    """store.yaml: what every scenario of one subject shares.

    ``feature_names`` holds what people call features, by the key of their network and layer, which every report
    of failure modes shows, then by number: numbers mean something else in another network.
    """

    schema_name = "store"
    schema_file = ".schema/store.json"

    classes: Annotated[tuple[ClassName, ...], Field(min_length=1)]
    tile: Tile
    budgets: Budgets = Budgets()
    voting: Voting = Voting()
    feature_names: dict[FeatureKey, dict[FeatureNumber, FeatureName]] = {}

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice:
            raise _wrong("classes", f"class {twice[0]!r} is given twice")
        return self


class SplitVotes(Record):
    """One annotator's votes on the tiles of one sheet, whose pixels have the hash ``sha256``."""

    sha256: Sha256
    labels: dict[str, tuple[Count, ...]] = {}
    none_of_the_above: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _one_vote_a_tile(self) -> Self:
        tiles = [*self.none_of_the_above, *(tile for chosen in self.labels.values() for tile in chosen)]
        twice = [tile for tile, count in Counter(tiles).items() if count > 1]
        if twice:
            raise _wrong("labels", f"tile {twice[0]} has two votes: keep one")
        return self

    @property
    def by_tile(self) -> dict[int, str | None]:
        """The class that each voted tile was given; None for none of the above."""
        named = {tile: name for name, tiles in self.labels.items() for tile in tiles}
        return {**named, **dict.fromkeys(self.none_of_the_above)}

    @staticmethod
    def of(sha256: str, votes: dict[int, str | None], classes: Sequence[str]) -> "SplitVotes":
        """The votes of :attr:`by_tile`, in canonical order."""
        chosen = {name: tuple(sorted(t for t, vote in votes.items() if vote == name)) for name in classes}
        return SplitVotes(
            sha256=sha256,
            labels={name: tiles for name, tiles in chosen.items() if tiles},
            none_of_the_above=tuple(sorted(tile for tile, vote in votes.items() if vote is None)),
        )


class VotesRecord(FileRecord):
    """votes/<annotator>.yaml: what one annotator saw on single tiles of a scenario."""

    schema_name = "votes"
    schema_file = "../../.schema/votes.json"

    annotator: Annotator
    kind: Literal["human", "model"]
    correction: SplitVotes | None = None
    held_out: SplitVotes | None = None

    def split(self, split: Split) -> SplitVotes | None:
        """The votes on the sheet of a split, if there are any."""
        return self.correction if split == "correction" else self.held_out


FILE_RECORDS: tuple[type[FileRecord], ...] = (ScenarioRecord, StoreRecord, VotesRecord)


def json_schema(kind: type[FileRecord]) -> dict[str, Any]:
    """The JSON Schema (draft 7) of a kind of file, as editors use it."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **kind.model_json_schema(),
        "title": f"pytest-defuse {kind.schema_name}, format {FORMAT}",
    }
