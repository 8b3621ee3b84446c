"""The scenario store: one folder per scenario, in one folder per subject."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from filelock import FileLock
from pydantic import ValidationError

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import temporary_name
from pytest_defuse.runtime.validation import first_invalid_value
from pytest_defuse.scenarios.documents import (
    Document,
    machine_of,
    parse_machine_of,
    read_document,
    scenario_problems,
    vote_problems,
)
from pytest_defuse.scenarios.machine import MachineRecord, counts
from pytest_defuse.scenarios.problems import (
    Problem,
    listed,
    plain_file,
    plain_folder,
    raise_if_any,
    read_or_report,
    store_error,
    write_plain,
)
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
from pytest_defuse.scenarios.sheets import Pixels, encode_sheet, pixel_hash, read_sheet, tile_format
from pytest_defuse.scenarios.writing import edited, new_document, rewritten

SCENARIO_FILES = ("scenario.yaml", "machine.json", *(f"{split}.png" for split in SPLITS))
LEFTOVERS = (
    f".new-{'?' * 8}",  # tempfile adds eight characters
    *map(temporary_name, ("store.yaml", ".gitignore", ".gitattributes")),
    f".schema/{temporary_name('*.json')}",
    *(f"*/{temporary_name(name)}" for name in ("scenario.yaml", "machine.json")),
    f"*/votes/{temporary_name('*.yaml')}",
)
"""What a killed writer may leave, as glob patterns."""
_IGNORED = """\
# Written by pytest-defuse: its lock, and what an interrupted write leaves.
.lock
.new-*
.*.yaml.*
"""
OLD_GITIGNORES = (_IGNORED, f"{_IGNORED}.machine.json.*\n")
"""What older versions wrote; :func:`migrate` replaces it."""
GIT_FILES = {
    ".gitignore": f"{_IGNORED}.*.json.*\n..git*\n",
    ".gitattributes": "# Written by pytest-defuse: GitHub and GitLab collapse these files in reviews.\n"
    "machine.json linguist-generated gitlab-generated\n",
}
"""Files for git in a store's folder; one that is there stays as it is."""


@dataclass(frozen=True)
class Scenario:
    """A scenario on disk: its folder, scenario.yaml and machine.json."""

    folder: Path
    record: ScenarioRecord
    machine: MachineRecord = field(repr=False)

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
    def store(self) -> "Store":
        """The store that holds the scenario."""
        return Store(self.folder.parent)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that the scenario can be given, as store.yaml names them now."""
        return self.store.record().classes

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
        classes, folder = self.classes, plain_folder(self.folder / "votes")
        votes: list[VotesRecord] = []
        problems: list[Problem] = []
        for path in sorted(folder.glob("*.yaml")):
            if document := read_or_report(partial(read_document, path, VotesRecord), problems):
                problems += vote_problems(document, self.record, classes)
                votes.append(document.record)
        raise_if_any(problems)
        return votes


@dataclass(frozen=True)
class Store:
    """The scenarios of one subject: the folder ``<store>/<subject's name>``."""

    folder: Path

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
        with self._writing():
            if not self.exists():
                document = new_document(record, str(path))
                self._write_schemas()
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

    def _write_schemas(self) -> None:
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
        with self._writing():
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

    def update(self, scenario_id: str, **changes: Any) -> Scenario:
        """Change keys of a scenario.yaml, in the format in which it is written; all other text stays as it is.

        Raises:
            DefuseError: there is no such scenario, or the file would be wrong; nothing was written.
        """
        with self._writing():
            scenario = self.get(scenario_id)
            try:
                record = ScenarioRecord.model_validate(scenario.record.model_dump() | changes)
            except ValidationError as error:
                raise DefuseError(f"Scenario {scenario_id}: {first_invalid_value(error)}.") from error
            document = edited(read_document(scenario.yaml, ScenarioRecord), record)
            raise_if_any(scenario_problems(document, scenario.machine, scenario.folder.name, self.record()))
            write_plain(scenario.yaml, document.content)
            return replace(scenario, record=document.record)

    def vote(
        self,
        scenario_id: str,
        annotator: str,
        votes: Mapping[Split, Mapping[int, str | None]],
        kind: Literal["human", "model"] = "human",
    ) -> None:
        """Add votes, split -> tile -> class, to an annotator's file; a new vote on a tile takes an earlier one's place.

        A vote for None is one for none of the above.

        Raises:
            DefuseError: a tile, class or annotator's name is not valid; nothing was written.
        """
        with self._writing():
            scenario = self.get(scenario_id)
            path = scenario.folder / "votes" / f"{annotator}.yaml"
            earlier = next((record for record in scenario.votes() if record.annotator == annotator), None)
            classes = scenario.classes
            values: dict[str, Any] = {"format": FORMAT, "annotator": annotator, "kind": kind}
            try:
                for split in SPLITS:
                    before = earlier.split(split) if earlier else None
                    if merged := {**(before.by_tile if before else {}), **votes.get(split, {})}:
                        values[split] = SplitVotes.of(scenario.record.sheet(split).sha256, merged, classes)
                record = VotesRecord.model_validate(values)
            except ValidationError as error:
                raise DefuseError(f"Votes of {annotator!r} on {scenario_id}: {first_invalid_value(error)}.") from error
            document = new_document(record, str(path))
            raise_if_any(vote_problems(document, scenario.record, classes))
            write_plain(path, document.content)

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
        raise_if_any(scenario_problems(document, machine, folder.name, shared or self.record()))
        return Scenario(folder, document.record, machine)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
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


def stores(root: Path) -> list[Store]:
    """The stores of all subjects below a folder, by name; also one that has lost its store.yaml."""
    folders = {path.parent for path in root.glob("*/store.yaml")}
    folders |= {path.parents[1] for path in root.glob("*/*/scenario.yaml")}
    return [Store(folder) for folder in sorted(folders)]


def outdated(stores: Iterable[Store]) -> list[tuple[Document[FileRecord], Document[FileRecord]]]:
    """The files of older formats, each as it is and as :func:`migrate` writes it."""
    problems: list[Problem] = []
    found = []
    for path, kind in (file for store in stores for file in store.files()):
        old: Document[FileRecord] | None = read_or_report(partial(read_document, path, kind), problems)
        if old and old.format < FORMAT and (new := read_or_report(partial(rewritten, old), problems)):
            found.append((old, new))
    raise_if_any(problems)
    return found


def migrate(stores: Sequence[Store]) -> None:
    """Write the files of older formats in the present one, and the present .gitignore where there is an older one.

    Contact sheets stay as they are.
    machine.json comes before scenario.yaml: an interruption leaves a file of the old format, which is valid.

    Raises:
        StoreError: a file of one of the stores cannot be rewritten; nothing was written.
    """
    with contextlib.ExitStack() as locks:
        for store in stores:
            locks.enter_context(store._writing())
        files = outdated(stores)
        for store in stores:
            store._write_schemas()
            ignore = store.folder / ".gitignore"
            if not ignore.is_symlink() and ignore.read_text(encoding="utf-8", errors="replace") in OLD_GITIGNORES:
                write_plain(ignore, GIT_FILES[".gitignore"].encode())
        for old, new in files:
            path = Path(old.file)
            if old.machine is not None:
                write_plain(path.with_name("machine.json"), old.machine.text.encode())
            write_plain(path, new.content)


def _is_leftover(path: Path) -> bool:
    """Whether a path that a writer may have left holds nothing else, such as a person's files in ``.new-features``."""
    made = [*SCENARIO_FILES, *map(temporary_name, SCENARIO_FILES)]
    inside = [inner for inner in path.rglob("*") if inner.is_symlink() or not inner.is_dir()]
    return not path.is_symlink() and all(any(fnmatch(inner.name, name) for name in made) for inner in inside)


def all_scenarios(root: Path) -> list[Scenario]:
    """The scenarios of all subjects below a folder, sorted by subject and id; see :func:`stores_below`."""
    return [scenario for store in stores_below(root) for scenario in store.scenarios()]


def stores_below(root: Path) -> list[Store]:
    """The stores of all subjects below a folder, by name."""
    if found := stores(root):
        return found
    raise DefuseError(
        f"There is no scenario store in {root}: run pytest --defuse-discover, "
        "or name the right folder with --defuse-store."
    )


def find(scenarios: Iterable[Scenario], name: str) -> Scenario:
    """The scenario called ``<id>`` or ``<subject>/<id>``; DefuseError if there is none, or several subjects have it."""
    found = [scenario for scenario in scenarios if name in (scenario.id, scenario.full_name)]
    if not found:
        raise DefuseError(f"There is no scenario {name!r}: see pytest-defuse list.")
    if len(found) > 1:
        raise DefuseError(f"Several subjects have {name!r}: name {' or '.join(s.full_name for s in found)}.")
    return found[0]


def accepted_scenarios(root: Path, only: Sequence[str] = ()) -> list[Scenario]:
    """The accepted scenarios of all subjects below a folder, or those that ``only`` names; sorted.

    Raises:
        DefuseError: a file is wrong, or ``only`` names something else.
    """
    return named([scenario for store in stores(root) for scenario in store.scenarios("accepted")], only, root)


def named(scenarios: Sequence[Scenario], only: Sequence[str], root: Path) -> list[Scenario]:
    """The scenarios of ids, ``subject/id``, labels or subjects; all of them without names.

    Raises:
        DefuseError: a name is that of no scenario; the message says that they are the accepted ones in ``root``.
    """
    names = [(s.id, s.full_name, s.record.label, s.subject) for s in scenarios]
    if unknown := [name for name in only if not any(name in own for own in names)]:
        raise DefuseError(
            f"defuse(only=...) names {unknown[0]!r}, which is neither the id, the label nor the subject of an accepted "
            f"scenario in {root}."
        )
    return [s for s, own in zip(scenarios, names, strict=True) if not only or any(name in own for name in only)]


def scenario_id(label: str, prediction: str, sha256: str) -> str:
    """A short, readable id that belongs to the content: ``<label>-as-<prediction>-<hash6>``."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{label}-as-{prediction}".lower()).strip("-")
    return f"{slug[:32].strip('-') or 'scenario'}-{sha256[:6]}"
