"""What all services share: tiles exported as images, answers imported as votes."""

import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from typing import cast as typed

from PIL import Image

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import temporary_name
from pytest_defuse.runtime.validation import shortened
from pytest_defuse.scenarios.problems import MAX_PROBLEMS, unknown_class
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import Split
from pytest_defuse.scenarios.store import Store

NONE_OF_THE_ABOVE = "None of the above"
TILE_KEY, SHEET_KEY = "defuse-tile", "defuse-sheet"
"""Keys that an item carries through a service: which tile it is, and the hash of its sheet."""

Kind = Literal["human", "model"]
Item = tuple[str, dict[str, str]]
"""One tile that is exported to a service: the image's path there, and the keys that come back unchanged."""
WriteItems = Callable[[Path, Sequence[Item], Sequence[str]], None]
"""Writes a service's own files: (folder, items, answers to choose from)."""


@dataclass(frozen=True)
class Ballot:
    """One answer of a service, at a place in its file, with the keys of the item as they came back."""

    where: str
    annotator: str
    kind: Kind
    keys: Mapping[str, Any]
    answer: str


Responses = list[list[Ballot | str]]
"""The answers on each item of a service's file; a sentence for one that cannot be read."""


@dataclass(frozen=True)
class Imported:
    """What an import added: numbers of votes by annotator, scenarios by full name, and items without an answer."""

    votes: Mapping[str, int]
    scenarios: tuple[str, ...]
    skipped: int


def export_items(
    scenarios: Sequence[Scenario], folder: Path, splits: Sequence[Split], maximum: int, prefix: str, write: WriteItems
) -> int:
    """Write tiles as image files, with a service's files, in one folder per subject, which appears whole.

    Args:
        maximum: images per sheet. The first tiles that are not excluded are taken: tiles are independent draws.
        prefix: precedes an image's path in the service.

    Returns:
        The number of images.

    Raises:
        DefuseError: the folder is not empty, or a class has the name of the answer for no class.
    """
    leftovers = set(folder.glob(temporary_name("export")))  # of a killed export
    if folder.exists() and (not folder.is_dir() or set(folder.iterdir()) - leftovers):
        raise DefuseError(f"{folder} is not empty: name a new folder.")
    for scenario in scenarios:
        if any(map(_is_none, scenario.classes)):
            store = scenario.folder.parent
            raise DefuseError(
                f"A class of {store} is called {NONE_OF_THE_ABOVE!r}, the answer for no class: rename it."
            )
    for leftover in leftovers:
        shutil.rmtree(leftover)
    new = folder / temporary_name("export", secrets.token_hex(4))
    new.mkdir(parents=True)
    try:
        count = _write_items(scenarios, new, splits, maximum, prefix, write)
        for subject in list(new.iterdir()):
            subject.rename(folder / subject.name)
        return count
    finally:
        shutil.rmtree(new)


def _write_items(
    scenarios: Sequence[Scenario], folder: Path, splits: Sequence[Split], maximum: int, prefix: str, write: WriteItems
) -> int:
    """What :func:`export_items` writes, in a folder."""
    choices = {scenario.subject: [*scenario.classes, NONE_OF_THE_ABOVE] for scenario in scenarios}
    items: dict[str, list[Item]] = {subject: [] for subject in choices}
    for scenario in scenarios:
        for split in splits:
            sheet = scenario.record.sheet(split)
            for tile, pixels in list(zip(sheet.kept, scenario.pixels(split), strict=True))[:maximum]:
                image = f"{scenario.full_name}/{split}-{tile:03d}.png"
                (folder / image).parent.mkdir(parents=True, exist_ok=True)
                array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
                Image.fromarray(array).save(folder / image, "PNG")
                keys = {TILE_KEY: f"{scenario.full_name}/{split}/{tile}", SHEET_KEY: sheet.sha256}
                items[scenario.subject].append((f"{prefix}{image}", keys))
    for subject, own in items.items():
        write(folder / subject, own, choices[subject])
    return sum(map(len, items.values()))


def import_ballots(scenarios: Sequence[Scenario], file: str, responses: Responses) -> Imported:
    """Add every answer to its annotator's votes, or none.

    Raises:
        DefuseError: an answer cannot be added; the message has one line per such answer.
    """
    known = {scenario.full_name: scenario for scenario in scenarios}
    problems: list[str] = []
    chosen: dict[tuple[str, str], dict[Split, dict[int, str | None]]] = {}
    kinds: dict[str, Kind] = {}
    for ballot in chain.from_iterable(responses):
        if isinstance(ballot, str):
            problems.append(ballot)
            continue
        found = _placed(ballot, known)
        if isinstance(found, str):
            problems.append(f"{ballot.where}: {found}")
            continue
        name, split, tile, label = found
        if kinds.setdefault(ballot.annotator, ballot.kind) != ballot.kind:
            problems.append(f"{ballot.where}: {ballot.annotator!r} is both a person and a model.")
        chosen.setdefault((ballot.annotator, name), {}).setdefault(split, {})[tile] = label
    for annotator, name in chosen:
        earlier = next((vote for vote in known[name].votes() if vote.annotator == annotator), None)
        if earlier and earlier.kind != kinds[annotator]:
            problems.append(f"{annotator!r} has voted on {name} as a {earlier.kind} before: use another name.")
    if problems:
        lines = [f"{file}: {problem}" for problem in dict.fromkeys(problems)]
        if len(lines) > MAX_PROBLEMS:
            lines[MAX_PROBLEMS:] = [f"{file}: {len(lines) - MAX_PROBLEMS} more."]
        raise DefuseError("\n".join([*lines, "Nothing was imported."]))
    votes = Counter[str]()
    for (annotator, name), cast in chosen.items():
        Store.of(known[name]).vote(known[name].id, annotator, cast, kinds[annotator])
        votes[annotator] += sum(map(len, cast.values()))
    return Imported(votes, tuple(sorted({name for _, name in chosen})), responses.count([]))


def annotator_name(text: str) -> str:
    """A service's name for an annotator, made a valid file name."""
    return re.sub(r"^[^a-z0-9]+", "", re.sub(r"[^a-z0-9._@+-]+", "-", text.lower()))[:64] or "unnamed"


def _placed(ballot: Ballot, known: Mapping[str, Scenario]) -> tuple[str, Split, int, str | None] | str:
    """Scenario, split, tile and label of an answer; a sentence if something is wrong with it."""
    key = ballot.keys.get(TILE_KEY)
    match = re.fullmatch(r"([^/]+/[^/]+)/(correction|held_out)/([0-9]{1,6})", key) if isinstance(key, str) else None
    if match is None:
        return f"{TILE_KEY} is {shortened(repr(key))}: pytest-defuse export did not write it."
    name, split, tile = match[1], typed(Split, match[2]), int(match[3])
    if name not in known:
        return f"there is no scenario {shortened(name)}."
    sheet = known[name].record.sheet(split)
    if tile >= sheet.images:
        return f"{name} has no tile {tile} in {split}.png."
    if ballot.keys.get(SHEET_KEY) != sheet.sha256:
        return f"{name} has other tiles in {split}.png than at the export: export it again."
    if _is_none(ballot.answer):
        return name, split, tile, None
    if ballot.answer not in known[name].classes:
        return unknown_class(ballot.answer, known[name].classes)
    return name, split, tile, ballot.answer


def _is_none(name: str) -> bool:
    return name.strip().lower() == NONE_OF_THE_ABOVE.lower()
