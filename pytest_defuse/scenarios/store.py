"""The scenario store: one folder per scenario, in one folder per subject; how it is read and written."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import ValidationError

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import temporary_name
from pytest_defuse.runtime.validation import first_invalid_value
from pytest_defuse.scenarios.documents import (
    machine_of,
    parse_machine_of,
    read_document,
    scenario_problems,
    vote_problems,
)
from pytest_defuse.scenarios.machine import MachineRecord
from pytest_defuse.scenarios.problems import (
    ChangedError,
    Problem,
    listed,
    plain_file,
    plain_folder,
    raise_if_any,
    read_or_report,
    store_error,
    write_plain,
)
from pytest_defuse.scenarios.scenario import SCENARIO_FILES, Scenario
from pytest_defuse.scenarios.schema import (
    FILE_RECORDS,
    FORMAT,
    SPLITS,
    FileRecord,
    ScenarioRecord,
    Split,
    SplitVotes,
    Status,
    StoreRecord,
    VotesRecord,
    json_schema,
)
from pytest_defuse.scenarios.sheets import Pixels, encode_sheet, pixel_hash, tile_format
from pytest_defuse.scenarios.writing import edited, new_document

LEFTOVERS = (
    f".new-{'?' * 8}",  # tempfile adds eight characters
    *map(temporary_name, ("store.yaml", ".gitignore", ".gitattributes")),
    f".schema/{temporary_name('*.json')}",
    *(f"*/{temporary_name(name)}" for name in ("scenario.yaml", "machine.json")),
    f"*/votes/{temporary_name('*.yaml')}",
)
"""What a killed writer may leave, as glob patterns."""
IGNORED = """\
# Written by pytest-defuse: its lock, and what an interrupted write leaves.
.lock
.new-*
.*.yaml.*
"""
GIT_FILES = {
    ".gitignore": f"{IGNORED}.*.json.*\n..git*\n",
    ".gitattributes": "# Written by pytest-defuse: GitHub and GitLab collapse these files in reviews.\n"
    "machine.json linguist-generated gitlab-generated\n",
}
"""Files for git in a store's folder; one that is there stays as it is."""


@dataclass(frozen=True)
class Store:
    """The scenarios of one subject: the folder ``<store>/<subject's name>``."""

    folder: Path

    @staticmethod
    def of(scenario: Scenario) -> "Store":
        """The store that holds a scenario."""
        return Store(scenario.folder.parent)

    def exists(self) -> bool:
        """Whether anything was ever stored."""
        return (self.folder / "store.yaml").exists()

    def record(self) -> StoreRecord:
        """What store.yaml holds."""
        return read_document(self.folder / "store.yaml", StoreRecord).record

    def folders(self) -> list[Path]:
        """The folders that hold a file of a scenario, by name."""
        found = {path.parent for name in SCENARIO_FILES for path in self.folder.glob(f"*/{name}")}
        return sorted(folder for folder in found if not folder.name.startswith("."))

    def scenarios(self, *statuses: Status) -> list[Scenario]:
        """All scenarios, or those of these statuses, sorted by id."""
        folders = self.folders()
        shared = self.record() if folders else None
        problems: list[Problem] = []
        found = [read_or_report(partial(self._read, folder, shared), problems) for folder in folders]
        raise_if_any(problems)
        return [scenario for scenario in found if scenario and (not statuses or scenario.record.status in statuses)]

    def get(self, scenario_id: str) -> Scenario:
        """The scenario with this id."""
        if not re.fullmatch(r"[a-z0-9-]+", scenario_id) or not (self.folder / scenario_id).is_dir():
            ids = [path.parent.name for path in sorted(self.folder.glob("*/scenario.yaml"))]
            known = f"it has {', '.join(ids)}" if ids else "it is empty"
            raise DefuseError(f"There is no scenario {scenario_id!r} in {self.folder}: {known}.")
        return self._read(self.folder / scenario_id)

    def open_for(self, record: StoreRecord) -> None:
        """Write store.yaml if there is none; DefuseError if the present one has other classes or tiles."""
        path = self.folder / "store.yaml"
        with self.writing():
            if not self.exists():
                document = new_document(record, str(path))
                self.write_schemas()
                write_plain(path, document.content)
            self.check_fits(record)

    def check_fits(self, record: StoreRecord) -> None:
        """Raise DefuseError if store.yaml has other classes or tiles than a subject's record."""
        present = self.record()
        if (present.classes, present.tile) != (record.classes, record.tile):
            raise DefuseError(
                f"{self.folder / 'store.yaml'} is for classes {listed(present.classes)} and tiles of "
                f"{present.tile.width} x {present.tile.height} {present.tile.mode}, but the subject has others: give "
                "the subject another name, or move the old store away."
            )

    def write_schemas(self) -> None:
        """Write the JSON Schemas that the first lines of the files name, for editors."""
        for kind in FILE_RECORDS:
            text = json.dumps(json_schema(kind), indent=1)
            write_plain(self.folder / ".schema" / f"{kind.schema_name}.json", f"{text}\n".encode())

    def feature_names(self) -> dict[str, dict[int, str]]:
        """Names that people give to features: by the key of their network and layer, then by number."""
        named = self.record().feature_names
        return {key: {int(number): name for number, name in names.items()} for key, names in named.items()}

    def add(self, record: ScenarioRecord, machine: MachineRecord, correction: Pixels, held_out: Pixels) -> Scenario:
        """Write a new scenario, whose folder appears whole; one that is there already stays as it is.

        Raises:
            DefuseError: the record contradicts the rest or store.yaml; nothing was written.
        """
        tiles: dict[Split, Pixels] = {"correction": correction, "held_out": held_out}
        for split, pixels in tiles.items():
            sheet = record.sheet(split)
            if (tile_format(pixels), len(pixels), pixel_hash(pixels)) != (record.tile, sheet.images, sheet.sha256):
                raise DefuseError(f"The {split} tiles of {record.id} are not those that its record describes.")
        folder = self.folder / record.id
        document = new_document(record.rounded(), str(folder / "scenario.yaml"))
        with self.writing():
            if not folder.exists():
                parse_machine_of(document, machine.text.encode(), str(folder / "machine.json"))
                raise_if_any(scenario_problems(document, machine, record.id, self.record()))
                with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as temporary:
                    new = Path(temporary) / record.id
                    new.mkdir()
                    for split, pixels in tiles.items():
                        write_plain(new / f"{split}.png", encode_sheet(pixels))
                    write_plain(new / "machine.json", machine.text.encode())
                    write_plain(new / "scenario.yaml", document.content)
                    new.rename(folder)
            return self._read(folder)

    def update(self, scenario_id: str, expected: str | None = None, **changes: Any) -> Scenario:
        """Change keys of a scenario.yaml, in the format in which it is written; all other text stays as it is.

        Args:
            expected: sha256 of the scenario.yaml on which the changes are based; None accepts any.

        Raises:
            ChangedError: scenario.yaml is another file now; nothing was written.
            DefuseError: there is no such scenario, or the file would be wrong; nothing was written.
        """
        with self.writing():
            scenario = self._expected(scenario_id, expected)
            try:
                record = ScenarioRecord.model_validate(scenario.record.model_dump() | changes)
            except ValidationError as error:
                raise DefuseError(f"Scenario {scenario_id}: {first_invalid_value(error)}.") from error
            document = edited(read_document(scenario.yaml, ScenarioRecord), record)
            raise_if_any(scenario_problems(document, scenario.machine, scenario.id, scenario.shared))
            write_plain(scenario.yaml, document.content)
            return replace(scenario, record=document.record, sha256=document.sha256)

    def vote(
        self,
        scenario_id: str,
        annotator: str,
        votes: Mapping[Split, Mapping[int, str | None]],
        kind: Literal["human", "model"] = "human",
        expected: str | None = None,
    ) -> None:
        """Add votes, split -> tile -> class, to an annotator's file; a new vote on a tile takes an earlier one's place.

        A vote for None is one for none of the above. ``expected`` is as in :meth:`update`.

        Raises:
            ChangedError: scenario.yaml is another file now; nothing was written.
            DefuseError: a tile, class or annotator's name is not valid; nothing was written.
        """
        with self.writing():
            scenario = self._expected(scenario_id, expected)
            path = scenario.folder / "votes" / f"{annotator}.yaml"
            earlier = next((record for record in scenario.votes() if record.annotator == annotator), None)
            values: dict[str, Any] = {"format": FORMAT, "annotator": annotator, "kind": kind}
            try:
                for split in SPLITS:
                    before = earlier.split(split) if earlier else None
                    if merged := {**(before.by_tile if before else {}), **votes.get(split, {})}:
                        values[split] = SplitVotes.of(scenario.record.sheet(split).sha256, merged, scenario.classes)
                record = VotesRecord.model_validate(values)
            except ValidationError as error:
                raise DefuseError(f"Votes of {annotator!r} on {scenario_id}: {first_invalid_value(error)}.") from error
            document = new_document(record, str(path))
            raise_if_any(vote_problems(document, scenario.record, scenario.classes))
            write_plain(path, document.content)

    def _expected(self, scenario_id: str, expected: str | None) -> Scenario:
        """The scenario, read under the lock, so that no other writer changes it after the comparison."""
        scenario = self.get(scenario_id)
        if expected not in (None, scenario.sha256):
            raise ChangedError(f"{scenario.yaml} has changed since it was read, and was not written: decide again.")
        return scenario

    def files(self) -> Iterator[tuple[Path, type[FileRecord]]]:
        """The YAML files of the store, with their kinds."""
        yield plain_folder(self.folder) / "store.yaml", StoreRecord
        for folder in map(plain_folder, self.folders()):
            yield folder / "scenario.yaml", ScenarioRecord
            for path in sorted(plain_folder(folder / "votes").glob("*.yaml")):
                yield path, VotesRecord

    def leftovers(self) -> list[Path]:
        """What killed writers left, which the next writer removes; nothing behind a symbolic link out of the store."""
        found = {path for pattern in LEFTOVERS for path in self.folder.glob(pattern) if _is_leftover(path)}
        return sorted(path for path in found if path.parent.resolve().is_relative_to(self.folder.resolve()))

    def _read(self, folder: Path, shared: StoreRecord | None = None) -> Scenario:
        document = read_document(plain_folder(folder) / "scenario.yaml", ScenarioRecord)
        machine = machine_of(document, folder)
        shared = shared or self.record()
        raise_if_any(scenario_problems(document, machine, folder.name, shared))
        return Scenario(folder, document.record, machine, shared, document.sha256)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One writer at a time; it first removes what a killed writer left. An error of the disk is one sentence."""
        try:
            plain_folder(self.folder).mkdir(parents=True, exist_ok=True)
            # The lock's file stays, and git ignores it: a process that waits for a removed file, and one that creates
            # it again, would both acquire their lock, and the second of two updates would undo the first.
            with FileLock(plain_file(self.folder / ".lock")):
                for leftover in self.leftovers():
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
                for name, text in GIT_FILES.items():
                    if not os.path.lexists(self.folder / name):
                        write_plain(self.folder / name, text.encode())
                yield
        except OSError as error:
            words = f"cannot be written ({error.strerror}): free disk space, or make the folder writable"
            raise store_error(error.filename or self.folder, f"{words}; no file was changed in part") from error


@dataclass(frozen=True)
class Stored:
    """The scenarios of a discovery: those that were added to the store, and those that were already there.

    Attributes:
        left_out: what was found but not written, and why, one sentence each.
    """

    new: tuple[Scenario, ...]
    known: tuple[Scenario, ...]
    left_out: tuple[str, ...] = ()


def _is_leftover(path: Path) -> bool:
    """Whether a path that a writer may have left holds nothing else, such as a person's files in ``.new-features``."""
    made = [*SCENARIO_FILES, *map(temporary_name, SCENARIO_FILES)]
    inside = [inner for inner in path.rglob("*") if inner.is_symlink() or not inner.is_dir()]
    return not path.is_symlink() and all(any(fnmatch(inner.name, name) for name in made) for inner in inside)
