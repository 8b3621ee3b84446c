"""What changed in a store between two revisions, in the words of a review."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Literal, TypeVar

import numpy as np

from pytest_defuse.scenarios.checks import listed
from pytest_defuse.scenarios.documents import Document, R, parse_document, parse_machine_of
from pytest_defuse.scenarios.machine import MachineRecord, Tiles, counts
from pytest_defuse.scenarios.problems import Problem, StoreError
from pytest_defuse.scenarios.revisions import Revision
from pytest_defuse.scenarios.schema import SPLITS, Record, ScenarioRecord, Split, StoreRecord, VotesRecord
from pytest_defuse.scenarios.sheets import Pixels, decode_sheet

T = TypeVar("T")
Kind = Literal["added", "removed", "relabelled", "pixels changed", "edited", "unreadable"]
KINDS: tuple[Kind, ...] = ("unreadable", "added", "removed", "relabelled", "pixels changed", "edited")
"""Every kind of change, the most important first."""


@dataclass(frozen=True)
class Side:
    """A scenario at one revision.

    Attributes:
        path: its folder, relative to the repository's root.
        record, machine: None where the file cannot be read.
        sheets: the PNG of each split whose pixels are those recorded.
        pixels: their tiles.
        problems: what cannot be read, and why.
    """

    path: PurePosixPath
    record: ScenarioRecord | None
    machine: MachineRecord | None
    votes: tuple[VotesRecord, ...]
    sheets: dict[Split, bytes]
    pixels: dict[Split, Pixels]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Change:
    """A scenario that differs between the two revisions.

    Attributes:
        kinds: most important first.
        details: what changed, a sentence each.
        before, after: None if the revision does not have it.
    """

    subject: str
    id: str
    kinds: tuple[Kind, ...]
    details: tuple[str, ...]
    before: Side | None
    after: Side | None

    @property
    def side(self) -> Side:
        """The scenario as it is now, or as it was before it was removed."""
        side = self.after or self.before
        assert side is not None
        return side


@dataclass(frozen=True)
class Difference:
    """Everything that changed between two commits.

    Attributes:
        base, head: full commit hashes.
        shared: changes of store.yaml files, a sentence each.
    """

    base: str
    head: str
    changes: tuple[Change, ...]
    shared: tuple[str, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What cannot be read in the newer revision."""
        return tuple(problem for change in self.changes if change.after for problem in change.after.problems)

    def __bool__(self) -> bool:
        return bool(self.changes or self.shared)


def difference(base: Revision, head: Revision) -> Difference:
    """Compare two revisions of a store; only what differs is read.

    Raises:
        DefuseError: git cannot read one of them.
    """
    touched = sorted(
        path for path in base.blobs.keys() | head.blobs.keys() if base.blobs.get(path) != head.blobs.get(path)
    )
    folders = sorted({path.parts[:2] for path in touched if len(path.parts) > 2 and path.parts[1][0] != "."})
    changes = []
    for subject, scenario in folders:
        before, after = (_side(revision, PurePosixPath(subject, scenario)) for revision in (base, head))
        if change := _change(subject, scenario, before, after):
            changes.append(change)
    changes.sort(key=lambda change: (KINDS.index(change.kinds[0]), change.subject, change.id))
    stores = [path for path in touched if path.parts[1:] == ("store.yaml",)]
    shared = [sentence for path in stores for sentence in _shared(base, head, path)]
    return Difference(base.commit, head.commit, tuple(changes), tuple(shared))


def _side(revision: Revision, folder: PurePosixPath) -> Side | None:
    names = {f"{split}.png": split for split in SPLITS}
    files = ("scenario.yaml", "machine.json", *names)
    own = [path for path in (folder / name for name in files) if path in revision.blobs]
    if not own:
        return None
    vote_files = sorted(p for p in revision.blobs if p.parent == folder / "votes" and p.suffix == ".yaml")
    place = revision.repository.folder / folder
    contents = revision.contents([*own, *vote_files])
    problems: list[Problem] = []
    document = _read(contents.get(folder / "scenario.yaml"), place / "scenario.yaml", ScenarioRecord, problems)
    record = document.record if document else None
    machine = document.machine if document else None
    if document and machine is None:
        data, file = contents.get(folder / "machine.json"), str(place / "machine.json")
        if data is None:
            problems.append(Problem(file, "is missing."))
        else:
            machine = _kept(partial(parse_machine_of, document, data, file), problems)
    votes: list[VotesRecord] = []
    sheets, pixels = {}, {}
    for path in vote_files:
        vote = _read(contents[path], revision.repository.folder / path, VotesRecord, problems)
        votes += [vote.record] if vote else []
    for name, split in names.items():
        file = str(place / name)
        if (data := contents.get(folder / name)) is None:
            problems.append(Problem(file, "is missing."))
        elif record is not None:
            tiles = _kept(partial(decode_sheet, data, file, record.sheet(split), record.tile, record.gap), problems)
            if tiles is not None:
                sheets[split], pixels[split] = data, tiles
    return Side(place, record, machine, tuple(votes), sheets, pixels, tuple(problems))


def _read(data: bytes | None, path: PurePosixPath, kind: type[R], problems: list[Problem]) -> Document[R] | None:
    if data is None:
        problems.append(Problem(str(path), "is missing."))
        return None
    return _kept(partial(parse_document, data, str(path), kind), problems)


def _kept(read: Callable[[], T], problems: list[Problem]) -> T | None:
    try:
        return read()
    except StoreError as error:
        problems += error.problems
        return None


def _change(subject: str, scenario: str, before: Side | None, after: Side | None) -> Change | None:
    """The change of a scenario; None if only other files of its folder changed."""
    if after is None or before is None:
        side = after or before
        if side is None:
            return None
        kinds: list[Kind] = ["added" if after else "removed"]
        if after and after.problems:
            kinds.insert(0, "unreadable")
        return Change(subject, scenario, tuple(kinds), tuple(_facts(side)), before, after)
    found: list[tuple[Kind, str]] = [("unreadable", str(problem)) for problem in after.problems]
    if before.record and after.record:
        found += _edits(before.record, after.record)
    if before.machine and after.machine:
        found += _machine_edits(before.machine, after.machine)
    found += _pixels(before, after)
    found += _votes(before.votes, after.votes)
    if not found:
        return None
    kinds = [kind for kind in KINDS if any(kind == other for other, _ in found)]
    details = dict.fromkeys(sentence for kind in kinds for other, sentence in found if kind == other)
    return Change(subject, scenario, tuple(kinds), tuple(details), before, after)


def _facts(side: Side) -> list[str]:
    """An added or removed scenario in a few words."""
    known = facts(side.record, side.machine) if side.record and side.machine else []
    return [*known, *(str(problem) for problem in side.problems)]


def facts(record: ScenarioRecord, machine: MachineRecord) -> list[str]:
    """What a reviewer should know about a new scenario, a sentence each."""
    label = f"proposed label {_name(record.proposed_label)}" if record.label is None else f"label {record.label}"
    sentences = [f"{record.status}, {'labels per image' if record.labels else label}"]
    predicted = counts(record.sheets.held_out, machine.held_out)
    if predicted:
        top = ", ".join(f"{name} ({count})" for name, count in list(predicted.items())[:3])
        sentences.append(f"held-out images classified as {top}")
    if rate := record.failure_rate:
        sentences.append(f"{rate.failed}/{rate.drawn} of fresh draws failed")
    return sentences + (machine.evidence.in_words(record.proposed_label) if machine.evidence else [])


def _edits(before: ScenarioRecord, after: ScenarioRecord) -> list[tuple[Kind, str]]:
    """Changed keys of scenario.yaml, but for the hashes of pixels and machine.json."""
    found: list[tuple[Kind, str]] = []
    if before.status != after.status:
        found.append(("relabelled", f"status {before.status} -> {after.status}"))
    if before.label != after.label:
        found.append(("relabelled", f"label {_name(before.label)} -> {_name(after.label)}"))
    for split in SPLITS:
        old, new = before.sheet(split), after.sheet(split)
        if set(old.excluded) != set(new.excluded):
            found.append(("edited", f"{split}: excluded tiles {_numbers(old.excluded)} -> {_numbers(new.excluded)}"))
        found += _changed(old, new, ("predicted",), f"{split}: ")
    for key in ("description", "notes"):
        if getattr(before, key) != (text := getattr(after, key)):
            found.append(("edited", f"{key}: {' '.join(text.split()) or 'removed'}"))
    compared = {"format", "id", "status", "label", "sheets", "description", "notes", "machine"}
    return found + _changed(before, after, (key for key in ScenarioRecord.model_fields if key not in compared))


def _machine_edits(before: MachineRecord, after: MachineRecord) -> list[tuple[Kind, str]]:
    """Changed parts of machine.json."""
    found: list[tuple[Kind, str]] = []
    for split in SPLITS:
        found += _changed(before.tiles(split), after.tiles(split), Tiles.model_fields, f"{split}: ")
    return found + _changed(before, after, ("evidence", "region"))


def _changed(before: Record, after: Record, keys: Iterable[str], of: str = "") -> list[tuple[Kind, str]]:
    changed = [key for key in keys if getattr(before, key) != getattr(after, key)]
    return [("edited", f"{of}{key.replace('_', ' ')} changed") for key in changed]


def _pixels(before: Side, after: Side) -> list[tuple[Kind, str]]:
    if before.record is None or after.record is None:
        return []
    found: list[tuple[Kind, str]] = []
    for split in SPLITS:
        # Hashes first: with Git LFS the sheets themselves are not in the revision.
        if before.record.sheet(split).sha256 == after.record.sheet(split).sha256:
            continue
        old, new = before.pixels.get(split), after.pixels.get(split)
        words = "other pixels"
        if old is not None and new is not None:
            words = f"{len(old)} tiles before, {len(new)} now"
            if old.shape == new.shape:
                tiles = np.flatnonzero((old != new).any(axis=(1, 2, 3))).tolist()
                words = f"{len(tiles)} of {len(new)} tiles changed: {_numbers(tiles)}"
        found.append(("pixels changed", f"{split}: {words}"))
    return found


def _votes(before: Sequence[VotesRecord], after: Sequence[VotesRecord]) -> list[tuple[Kind, str]]:
    old, new = ({vote.annotator: vote for vote in votes} for votes in (before, after))
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    words = [f"{name} {'removed' if name not in new else 'new' if name not in old else 'changed'}" for name in changed]
    return [("edited", f"votes: {', '.join(words)}")] if words else []


def _shared(base: Revision, head: Revision, path: PurePosixPath) -> list[str]:
    place = base.repository.folder / path
    sides = []
    for revision in (base, head):
        problems: list[Problem] = []
        data = revision.contents([path]).get(path)
        document = _read(data, place, StoreRecord, problems) if data is not None else None
        sides.append(document.record if document else None)
        if problems and revision is head:
            return [str(problem) for problem in problems]
    old, new = sides
    if old is None or new is None:
        return [f"{place} is {'new' if old is None else 'gone'}"]
    keys = [key for key in ("classes", "tile", "budgets", "voting") if getattr(old, key) != getattr(new, key)]
    return [f"{place}: {', '.join(keys)} changed"] if keys else []


def _name(label: str | None) -> str:
    return "(none)" if label is None else label


def _numbers(tiles: Sequence[int]) -> str:
    return listed([str(tile) for tile in sorted(tiles)], 12) or "none"
