"""What changed in a store between two revisions, in the words of a review."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from pytest_defuse.runtime.validation import shortened
from pytest_defuse.scenarios.documents import Document, R, parse_document, parse_machine_of
from pytest_defuse.scenarios.machine import MachineRecord, counts
from pytest_defuse.scenarios.problems import Problem, listed, read_or_report, store_error
from pytest_defuse.scenarios.revisions import Revision
from pytest_defuse.scenarios.scenario import SCENARIO_FILES
from pytest_defuse.scenarios.schema import SPLITS, Record, ScenarioRecord, Split, StoreRecord, VotesRecord
from pytest_defuse.scenarios.sheets import Pixels, decode_sheet

Kind = Literal["added", "removed", "relabelled", "pixels changed", "edited", "unreadable"]
KINDS: tuple[Kind, ...] = ("unreadable", "added", "removed", "relabelled", "pixels changed", "edited")
"""Every kind of change, the most important first."""
Details = Iterator[tuple[Kind, str]]
"""What changed, one sentence per change, with its kind."""


@dataclass(frozen=True)
class Side:
    """A scenario at one revision: what can be read in its folder, and what cannot.

    Attributes:
        path: its folder, relative to the repository's root.
        sheets, pixels: PNG and tiles of each split whose pixels are those recorded.
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
    """A scenario that differs between two revisions: how, the most important first, in one sentence per change."""

    subject: str
    id: str
    kinds: tuple[Kind, ...]
    details: tuple[str, ...]
    before: Side | None
    after: Side | None


@dataclass(frozen=True)
class Difference:
    """Everything that changed between two commits; ``shared`` has one sentence per store.yaml that changed."""

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
    """Compare two revisions of a store; only what differs is read."""
    touched = sorted({path for path, _ in base.blobs.items() ^ head.blobs.items()})
    folders = sorted({path.parts[:2] for path in touched if len(path.parts) > 2 and path.parts[1][0] != "."})
    changes = [change for folder in folders if (change := _change(base, head, *folder))]
    changes.sort(key=lambda change: (KINDS.index(change.kinds[0]), change.subject, change.id))
    stores = [path for path in touched if path.parts[1:] == ("store.yaml",)]
    shared = [sentence for path in stores for sentence in _shared(base, head, path)]
    return Difference(base.commit, head.commit, tuple(changes), tuple(shared))


def _change(base: Revision, head: Revision, subject: str, scenario: str) -> Change | None:
    """The change of a scenario; None if only other files of its folder changed."""
    before, after = (_side(revision, PurePosixPath(subject, scenario)) for revision in (base, head))
    if before and after:
        found = list(details_of(before, after))
        kinds = [kind for kind in KINDS if any(kind == other for other, _ in found)]
        details = dict.fromkeys(sentence for kind in kinds for other, sentence in found if kind == other)
    elif side := after or before:
        kinds = ["added" if after else "removed"]
        if after and after.problems:
            kinds.insert(0, "unreadable")
        known = facts(side.record, side.machine) if side.record and side.machine else []
        details = dict.fromkeys([*known, *map(str, side.problems)])
    else:
        return None
    return Change(subject, scenario, tuple(kinds), tuple(details), before, after) if kinds else None


def _side(revision: Revision, folder: PurePosixPath) -> Side | None:
    """A scenario at a revision; None if that has no file of it."""
    own = {path for path in revision.blobs if path.parent == folder and path.name in SCENARIO_FILES}
    if not own:
        return None
    vote_files = sorted(p for p in revision.blobs if p.parent == folder / "votes" and p.suffix == ".yaml")
    contents = revision.contents([*own, *vote_files])
    place = revision.repository.folder / folder
    problems: list[Problem] = []

    def content(name: str) -> bytes:
        if folder / name not in contents:
            raise store_error(place / name, "is missing")
        return contents[folder / name]

    def parsed(name: str, kind: type[R]) -> Document[R] | None:
        return read_or_report(lambda: parse_document(content(name), str(place / name), kind), problems)

    document = parsed("scenario.yaml", ScenarioRecord)
    record, machine = (document.record, document.machine) if document else (None, None)
    if document and not machine:
        file = str(place / "machine.json")
        machine = read_or_report(lambda: parse_machine_of(document, content("machine.json"), file), problems)
    votes = [vote.record for path in vote_files if (vote := parsed(f"votes/{path.name}", VotesRecord))]
    sheets, pixels = {}, {}
    for split in SPLITS:
        name = f"{split}.png"
        data = read_or_report(partial(content, name), problems)
        if data is not None and record:
            sheet = record.sheet(split)
            tiles = read_or_report(
                partial(decode_sheet, data, str(place / name), sheet, record.tile, record.gap), problems
            )
            if tiles is not None:
                sheets[split], pixels[split] = data, tiles
    return Side(place, record, machine, tuple(votes), sheets, pixels, tuple(problems))


def facts(record: ScenarioRecord, machine: MachineRecord) -> list[str]:
    """What a reviewer should know about a new scenario, one sentence per fact."""
    label = f"proposed label {_name(record.proposed_label)}" if record.label is None else f"label {record.label}"
    sentences = [f"{record.status}, {'labels per image' if record.labels else label}"]
    if predicted := counts(record.sheets.held_out, machine.held_out):
        top = ", ".join(f"{name} ({count})" for name, count in list(predicted.items())[:3])
        sentences.append(f"held-out tiles classified as {top}")
    if rate := record.failure_rate:
        sentences.append(f"the model failed on {rate.failed}/{rate.drawn} images when it was found")
    return sentences + (machine.evidence.in_words(record.proposed_label) if machine.evidence else [])


def details_of(before: Side, after: Side) -> Details:
    """Everything that differs between two sides of a scenario."""
    for problem in after.problems:
        yield "unreadable", str(problem)
    for problem in before.problems:
        if problem not in after.problems:
            yield "edited", f"before: {problem}"
    if not before.record and after.record and after.machine:
        yield from (("edited", fact) for fact in facts(after.record, after.machine))
    if before.record and after.record:
        yield from _edits(before.record, after.record)
        for split in SPLITS:
            # Hashes first: with Git LFS the sheets themselves are not in the revision.
            if before.record.sheet(split).sha256 != after.record.sheet(split).sha256:
                yield "pixels changed", f"{split}: {_pixels(before.pixels.get(split), after.pixels.get(split))}"
    if before.machine and after.machine:
        for split in SPLITS:
            old, new = before.machine.tiles(split), after.machine.tiles(split)
            yield from _changed(old, new, f"{split}: ")
        yield from _changed(before.machine, after.machine, but=("format", *SPLITS))
    cast, now = ({vote.annotator: vote for vote in side.votes} for side in (before, after))
    voters = [name for name in sorted(cast.keys() | now.keys()) if cast.get(name) != now.get(name)]
    if voters:
        words = [f"{name} {'removed' if name not in now else 'changed' if name in cast else 'new'}" for name in voters]
        yield "edited", f"votes: {', '.join(words)}"


def _edits(before: ScenarioRecord, after: ScenarioRecord) -> Details:
    """Changed keys of scenario.yaml, except for the hashes of pixels and machine.json."""
    if before.status != after.status:
        yield "relabelled", f"status {before.status} -> {after.status}"
    if before.label != after.label:
        yield "relabelled", f"label {_name(before.label)} -> {_name(after.label)}"
    for split in SPLITS:
        old, new = before.sheet(split), after.sheet(split)
        if set(old.excluded) != set(new.excluded):
            yield "edited", f"{split}: excluded tiles {_numbers(old.excluded)} -> {_numbers(new.excluded)}"
        yield from _changed(old, new, f"{split}: ", but=("images", "sha256", "excluded"))
    for key in ("description", "notes"):
        if getattr(before, key) != (text := getattr(after, key)):
            yield "edited", f"{key}: {' '.join(text.split()) or 'removed'}"
    compared = ("format", "id", "status", "label", "sheets", "description", "notes", "machine")
    yield from _changed(before, after, but=compared)


def _changed(before: Record, after: Record, of: str = "", *, but: Collection[str] = ()) -> Details:
    """Changed fields of a record, except for some: the values of bounds, texts and numbers, and the names of others."""
    for key in type(before).model_fields:
        old, new = getattr(before, key), getattr(after, key)
        if key not in but and old != new:
            plain = all(isinstance(value, str | int | float | dict | None) for value in (old, new))
            words = f"{_value(old)} -> {_value(new)}" if plain else "changed"
            yield "edited", f"{of}{key.replace('_', ' ')} {words}"


def _pixels(before: Pixels | None, after: Pixels | None) -> str:
    """How the pixels of a sheet changed, as far as both can be read."""
    if before is None or after is None:
        return "other pixels"
    if before.shape != after.shape:
        return f"{len(before)} tiles before, {len(after)} now"
    tiles = np.flatnonzero((before != after).any(axis=(1, 2, 3))).tolist()
    return f"{len(tiles)} of {len(after)} tiles changed: {_numbers(tiles)}"


def _shared(base: Revision, head: Revision, path: PurePosixPath) -> list[str]:
    """What changed in a store.yaml, in sentences."""
    place = base.repository.folder / path
    records = []
    for revision in (base, head):
        problems: list[Problem] = []  # those of the newer revision count
        data = revision.contents([path]).get(path)
        document = None
        if data is not None:
            document = read_or_report(partial(parse_document, data, str(place), StoreRecord), problems)
        records.append(document.record if document else None)
    old, new = records
    if problems:
        return [str(problem) for problem in problems]
    if old is None or new is None:
        return [f"{place} is {'new' if old is None else 'gone'}"]
    keys = [key for key in StoreRecord.model_fields if key != "format" and getattr(old, key) != getattr(new, key)]
    return [f"{place}: {', '.join(keys)} changed"] if keys else []


def _value(value: object) -> str:
    """A value of scenario.yaml in a sentence, at most 80 characters of it."""
    return shortened("(none)" if value in (None, {}) else str(value))


def _name(label: str | None) -> str:
    return "(none)" if label is None else label


def _numbers(tiles: Sequence[int]) -> str:
    return listed([str(tile) for tile in sorted(tiles)], 12) or "none"
