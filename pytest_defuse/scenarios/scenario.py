"""One scenario: its folder, and what its files hold."""

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.documents import read_document, vote_problems
from pytest_defuse.scenarios.machine import MachineRecord, counts
from pytest_defuse.scenarios.problems import Problem, plain_folder, raise_if_any, read_or_report
from pytest_defuse.scenarios.schema import SPLITS, ScenarioRecord, Split, StoreRecord, VotesRecord
from pytest_defuse.scenarios.sheets import Pixels, read_sheet

SCENARIO_FILES = ("scenario.yaml", "machine.json", *(f"{split}.png" for split in SPLITS))


@dataclass(frozen=True)
class Scenario:
    """A scenario on disk, as it was read.

    Attributes:
        folder: ``<store>/<subject's name>/<id>``.
        record, machine: scenario.yaml and machine.json.
        shared: the store.yaml beside the folder.
        sha256: hash of scenario.yaml's bytes, in hex.
    """

    folder: Path
    record: ScenarioRecord
    machine: MachineRecord = field(repr=False)
    shared: StoreRecord = field(repr=False)
    sha256: str = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        """The scenario's id, which is its folder's name."""
        return self.record.id

    @property
    def subject(self) -> str:
        """The name of the subject that the scenario belongs to."""
        return self.folder.parent.name

    @property
    def full_name(self) -> str:
        """``<subject>/<id>``."""
        return f"{self.subject}/{self.id}"

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that the scenario can be given."""
        return self.shared.classes

    @property
    def yaml(self) -> Path:
        """The file that a reviewer edits."""
        return self.folder / "scenario.yaml"

    def sheet_file(self, split: Split) -> Path:
        """The PNG of a split."""
        return self.folder / f"{split}.png"

    def pixels(self, split: Split) -> Pixels:
        """The tiles of a split without excluded ones, uint8 N x C x H x W; see :func:`read_sheet` for errors."""
        sheet = self.record.sheet(split)
        return read_sheet(self.sheet_file(split), sheet, self.record.tile, self.record.gap)[sheet.kept]

    def labels(self, split: Split) -> list[str]:
        """The class that each tile of :meth:`pixels` shows; DefuseError if the scenario has no label."""
        kept, named = self.record.sheet(split).kept, self.machine.tiles(split).labels
        if named is not None:
            return [named[tile] for tile in kept]
        if self.record.label is None:
            raise DefuseError(f"{self.yaml} has no label: write the class that the images show.")
        return [self.record.label] * len(kept)

    def counts(self, split: Split) -> dict[str, int]:
        """Tiles by the class that was predicted; see :func:`pytest_defuse.scenarios.machine.counts`."""
        return counts(self.record.sheet(split), self.machine.tiles(split))

    def recorded_accuracy(self, split: Split) -> float | None:
        """The model's accuracy at discovery on the tiles of :meth:`pixels`, in [0, 1]; None where it was not recorded.

        Where predictions were only counted, excluded tiles count too.
        """
        predicted, counted = self.machine.tiles(split).predicted, self.record.sheet(split).predicted
        if predicted is not None:
            kept = self.record.sheet(split).kept
            return fmean(predicted[tile] == label for tile, label in zip(kept, self.labels(split), strict=True))
        return counted.get(self.record.label, 0) / sum(counted.values()) if counted and self.record.label else None

    def votes(self) -> list[VotesRecord]:
        """The votes on single tiles, by annotator."""
        votes: list[VotesRecord] = []
        problems: list[Problem] = []
        for path in sorted(plain_folder(self.folder / "votes").glob("*.yaml")):
            if document := read_or_report(partial(read_document, path, VotesRecord), problems):
                problems += vote_problems(document, self.record, self.classes)
                votes.append(document.record)
        raise_if_any(problems)
        return votes


def scenario_id(label: str, prediction: str, sha256: str) -> str:
    """A short, readable id that belongs to the content: ``<label>-as-<prediction>-<hash6>``."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{label}-as-{prediction}".lower()).strip("-")
    return f"{slug[:32].strip('-') or 'scenario'}-{sha256[:6]}"
