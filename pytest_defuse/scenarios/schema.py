"""What the YAML files of a store hold: format 2, frozen."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.validation import first_invalid_value
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.scenarios.problems import listed

FORMAT = 2
MAX_PIXELS = 2**26
"""Maximum pixels of a sheet, so that no file makes a reader allocate more than 200 MB (2^26 x 3 bytes)."""
MAX_IMAGES = 2**16
"""Maximum number of tiles of a sheet: 256 x 256, a hundred times what a person looks at."""
MAX_TILES = 256
"""Default budget of tiles in a sheet: 16 x 16, which one look takes in; Wilson's 95% interval is then at most
12.2 points wide."""
MAX_SHEET_BYTES = 2**21
"""Default budget of bytes in a sheet, 2 MiB: 100 scenarios of two sheets stay below the 1 GB that GitHub
recommends for a repository."""

Status = Literal["candidate", "accepted", "rejected"]
Method = Literal["defuse", "transformations", "barlow", "reported"]
Split = Literal["correction", "held_out"]
SPLITS: tuple[Split, Split] = ("correction", "held_out")

Format = Annotated[int, Field(ge=FORMAT, le=FORMAT), WithJsonSchema({"const": FORMAT})]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FeatureKey = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
FeatureNumber = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
FeatureName = Annotated[str, Field(min_length=1, max_length=80)]
ClassName = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean"]})]
"""A class by its name; ``label: 3`` typed by hand is the name "3", so editors must accept a number."""
ScenarioId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=48)]
Annotator = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._@+-]*$", max_length=64)]
"""Who votes. It is also a file name, and some file systems ignore case, so it is in lower case."""


def inconsistent(key: str, words: str) -> PydanticCustomError:
    """An error of several values together, reported at the line of ``key``."""
    return PydanticCustomError("together", "{words}", {"key": key, "words": words})


class Record(BaseModel):
    """A file of a store, or a part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def rounded(self) -> Self:
        """The record with numbers of nine significant digits, as a new file has them.

        Nine are exact for float32, keep a covariance positive definite, and hide rounding errors, which depend on the
        machine.
        """
        dumped = json.dumps(self.model_dump())
        return self.model_validate(json.loads(dumped, parse_float=lambda digits: float(f"{float(digits):.9g}")))


class FileRecord(Record):
    """A whole YAML file, with the name of its JSON Schema and the schema's path relative to the file's folder."""

    schema_name: ClassVar[str]
    schema_file: ClassVar[str]

    format: Format


class FailureRate(Record):
    """Failures on the held-out tiles when they were written; earlier versions counted them among other fresh draws.

    Attributes:
        failed, drawn: counts.
        low, high: Wilson's 95% interval of the rate, in [0, 1].
    """

    failed: NonNegativeInt
    drawn: Annotated[int, Field(ge=1)]
    low: Share
    high: Share

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.failed > self.drawn:
            raise inconsistent("failed", f"failed is {self.failed}, but only {self.drawn} were drawn")
        if self.low > self.high:
            raise inconsistent("low", f"low is {self.low:g}, above high, which is {self.high:g}")
        return self


class SheetRecord(Record):
    """One contact sheet.

    Attributes:
        images: number of tiles, counted from 0 in reading order.
        sha256: hash of their decoded pixels, shape and mode.
        predicted: tiles by the class that the model predicted at discovery; None where nothing was predicted.
        excluded: tiles that a reviewer leaves out.
    """

    images: Annotated[int, Field(ge=1, le=MAX_IMAGES)]
    sha256: Sha256
    predicted: dict[str, NonNegativeInt] | None = None
    excluded: tuple[NonNegativeInt, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        total = self.images if self.predicted is None else sum(self.predicted.values())
        if total != self.images:
            raise inconsistent("predicted", f"predicted counts {total} tiles, but images is {self.images}")
        if beyond := [tile for tile in self.excluded if tile >= self.images]:
            words = f"excluded names tile {beyond[0]}, but the sheet has tiles 0 to {self.images - 1}"
            raise inconsistent("excluded", words)
        if len(set(self.excluded)) == self.images:
            raise inconsistent("excluded", "excluded names every tile: reject the scenario instead")
        return self

    @property
    def kept(self) -> list[int]:
        """The tiles that are not excluded, in reading order."""
        return sorted({*range(self.images)} - {*self.excluded})


class Sheets(Record):
    """The two splits: images to finetune on, and images that only the gate sees."""

    correction: SheetRecord
    held_out: SheetRecord


class TileFormat(Record):
    """Mode and size, in pixels, of every tile."""

    mode: Literal["L", "RGB"]
    width: Annotated[int, Field(ge=1, le=1024)]
    height: Annotated[int, Field(ge=1, le=1024)]

    @property
    def channels(self) -> int:
        """1 for grey tiles, 3 for RGB."""
        return 1 if self.mode == "L" else 3


class Provenance(Record):
    """What the scenario was found with.

    Attributes:
        model, data: sha256 of the model under test and of its training images; None if people reported the images.
        seed: of the discovery; None likewise.
        versions: of the packages that found it.
    """

    model: Sha256 | None = None
    data: Sha256 | None = None
    seed: int | None = None
    versions: dict[str, str]


def installed_versions() -> dict[str, str]:
    """The versions that :class:`Provenance` records."""
    return {name: version(name) for name in ("pytest-defuse", "torch")}


def description_of(label: str | None, prediction: str | None) -> str:
    """The description of a scenario that was found by its failures."""
    return f"Images of {label} that the model classifies as {prediction or 'another class'}."


class ScenarioRecord(FileRecord):
    """scenario.yaml: what a person reads and decides about one scenario.

    Attributes:
        label: the class that every tile shows; None while undecided, and where each image has its own label.
        labels: ``per image`` if machine.json holds a class for each tile.
        proposed_label: the class that the judges see. Judges are reference classifiers that give a second opinion.
        description: one sentence that says what the images have in common, with the rule where there is one.
        bounds: bounds of this scenario, which override those of a test's marker.
        base_error_rate: error rate of the group in which a failure mode was found, in [0, 1].
        gap: pixels between neighbouring tiles of a sheet.
        method: what found it; ``reported`` means that people brought the images.
        machine: sha256 of machine.json, see :attr:`pytest_defuse.scenarios.machine.MachineRecord.sha256`.
    """

    schema_name = "scenario"
    schema_file = "../.schema/scenario.json"

    id: ScenarioId
    status: Status
    label: ClassName | None
    labels: Literal["per image"] | None = None
    proposed_label: ClassName | None = None
    description: str = ""
    notes: str = ""
    bounds: dict[str, int | float] = {}
    failure_rate: FailureRate | None = None
    base_error_rate: Share | None = None
    tile: TileFormat
    gap: Annotated[int, Field(ge=0, le=1024)] = 0
    sheets: Sheets
    method: Method
    provenance: Provenance
    machine: Sha256

    @field_validator("bounds")
    @classmethod
    def _bounds_are_known(cls, bounds: dict[str, int | float]) -> dict[str, int | float]:
        try:
            Bounds.of(bounds, "the scenario")
        except DefuseError as error:
            raise ValueError(str(error)) from None
        return bounds

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.labels is not None and self.label is not None:
            raise inconsistent("label", "each image has its own label (labels: per image), so label must be null")
        if self.status == "accepted" and self.label is None and self.labels is None:
            raise inconsistent("label", "status is accepted but label is empty: write the class that the images show")
        of_discovery: dict[tuple[str, ...], object] = {
            ("proposed_label",): self.proposed_label,
            ("failure_rate",): self.failure_rate,
            **{("sheets", split, "predicted"): self.sheet(split).predicted for split in SPLITS},
            **{("provenance", key): getattr(self.provenance, key) for key in ("model", "data", "seed")},
        }
        for (key, *inner), value in of_discovery.items():
            if value is None and self.method != "reported":
                words = f"{'.'.join(inner)} is missing; only a scenario with method: reported can leave it out"
                raise inconsistent(key, words.strip())
        for split in SPLITS:
            pixels = self.sheet(split).images * (self.tile.width + self.gap) * (self.tile.height + self.gap)
            if pixels > MAX_PIXELS:
                words = f"{split} would have {pixels:,} pixels, more than the limit of {MAX_PIXELS:,}"
                raise inconsistent("sheets", words)
        return self

    def sheet(self, split: Split) -> SheetRecord:
        """The sheet of a split."""
        return self.sheets.correction if split == "correction" else self.sheets.held_out

    def class_names(self) -> Iterable[tuple[tuple[str, ...], str]]:
        """Every class that the record names, each with the keys that lead to it."""
        for key in ("label", "proposed_label"):
            if (name := getattr(self, key)) is not None:
                yield (key,), name
        for split in SPLITS:
            for name in self.sheet(split).predicted or {}:
                yield ("sheets", split, "predicted", name), name


class Budgets(Record):
    """What a store should not exceed, so that its repository stays small; ``verify`` warns about what does."""

    sheet_bytes: Annotated[int, Field(ge=1)] = MAX_SHEET_BYTES
    tiles: Annotated[int, Field(ge=1)] = MAX_TILES
    scenarios: Annotated[int, Field(ge=1)] = 100

    @staticmethod
    def of(tile: TileFormat) -> "Budgets":
        """The default budgets: as many tiles as fit uncompressed into the bytes of a sheet, and no more than 256."""
        fitting = MAX_SHEET_BYTES // (tile.channels * tile.width * tile.height)
        return Budgets(tiles=max(1, min(MAX_TILES, fitting)))


class Voting(Record):
    """How votes become a decision.

    Attributes:
        rho: minimum share of tiles on which the model is wrong; a scenario has more than this (Defuse paper,
            section 4.1).
        low_agreement: a mean agreement below this is reported.
        count_models: whether the votes of models count like those of people.
    """

    rho: Share = 0.5
    low_agreement: Share = 0.7
    count_models: bool = False


class StoreRecord(FileRecord):
    """store.yaml: what all scenarios of one subject share.

    Attributes:
        classes: names, in the order of the model's logits.
        feature_names: names that people give to features, by the key of their network and layer, which every report
            of failure modes shows, then by number: another network numbers its features otherwise.
    """

    schema_name = "store"
    schema_file = ".schema/store.json"

    classes: Annotated[tuple[ClassName, ...], Field(min_length=1)]
    tile: TileFormat
    budgets: Budgets = Budgets()
    voting: Voting = Voting()
    feature_names: dict[FeatureKey, dict[FeatureNumber, FeatureName]] = {}

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        if twice := [repr(name) for name, count in Counter(self.classes).items() if count > 1]:
            words = f"class {twice[0]} is" if len(twice) == 1 else f"classes {listed(twice)} are"
            raise inconsistent("classes", f"{words} given twice")
        return self

    @staticmethod
    def of(classes: Sequence[str], tile: TileFormat) -> "StoreRecord":
        """The store of a subject with these classes and images, with default budgets and voting."""
        values = {"format": FORMAT, "classes": tuple(classes), "tile": tile, "budgets": Budgets.of(tile)}
        try:
            return StoreRecord.model_validate(values)
        except ValidationError as error:
            raise DefuseError(f"The classes cannot be stored: {first_invalid_value(error)}.") from error


class SplitVotes(Record):
    """One annotator's votes on the tiles of one sheet, whose pixels have the hash ``sha256``."""

    sha256: Sha256
    labels: dict[str, tuple[NonNegativeInt, ...]] = {}
    none_of_the_above: tuple[NonNegativeInt, ...] = ()

    @model_validator(mode="after")
    def _one_vote_a_tile(self) -> Self:
        tiles = [*self.none_of_the_above, *(tile for chosen in self.labels.values() for tile in chosen)]
        if twice := [tile for tile, count in Counter(tiles).items() if count > 1]:
            raise inconsistent("labels", f"tile {twice[0]} has two votes: keep one")
        return self

    @property
    def by_tile(self) -> dict[int, str | None]:
        """The class that each voted tile was given; None for none of the above."""
        named = {tile: name for name, tiles in self.labels.items() for tile in tiles}
        return {**named, **dict.fromkeys(self.none_of_the_above)}

    @staticmethod
    def of(sha256: str, votes: dict[int, str | None], classes: Sequence[str]) -> "SplitVotes":
        """The votes of :attr:`by_tile`, in canonical order."""
        # An unknown class must not be dropped here: checking the file is to name it.
        names = dict.fromkeys([*classes, *(vote for vote in votes.values() if vote is not None)])
        chosen = {name: tuple(sorted(t for t, vote in votes.items() if vote == name)) for name in names}
        return SplitVotes(
            sha256=sha256,
            labels={name: tiles for name, tiles in chosen.items() if tiles},
            none_of_the_above=tuple(sorted(tile for tile, vote in votes.items() if vote is None)),
        )


class VotesRecord(FileRecord):
    """votes/<annotator>.yaml: one annotator's votes on single tiles of a scenario."""

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
