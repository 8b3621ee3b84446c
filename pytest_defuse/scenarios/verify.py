"""Everything that can be wrong with stores, in one list."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

from pytest_defuse.scenarios.documents import Document, R, machine_of, read_document, scenario_problems, vote_problems
from pytest_defuse.scenarios.problems import Problem, plain_folder, read_or_report
from pytest_defuse.scenarios.scenario import SCENARIO_FILES
from pytest_defuse.scenarios.schema import FORMAT, SPLITS, ScenarioRecord, StoreRecord, VotesRecord
from pytest_defuse.scenarios.sheets import read_sheet
from pytest_defuse.scenarios.store import Store


def verify(stores: Sequence[Store]) -> list[Problem]:
    """Check schema, pixels and machine.json against hashes, classes, votes, Git LFS pointers, budgets, orphans,
    duplicates by pixels.

    Nothing is written. With warnings alone, everything still works.
    """
    search = _Search()
    for store in stores:
        search.store(store)
    return list(dict.fromkeys([*search.found, *_duplicates(search.tiles)]))


class _Search:
    """Problems, file by file, and the hashes of the tiles of every contact sheet that could be read."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.tiles: dict[Path, list[bytes]] = {}

    def store(self, store: Store) -> None:
        read_or_report(partial(plain_folder, store.folder), self.found)
        document = self._read(store.folder / "store.yaml", StoreRecord)
        folders = [path for path in sorted(store.folder.iterdir()) if path.is_dir() and path.name[0] != "."]
        for folder in folders:
            self._scenario(folder, document.record if document else None)
        if document:
            self.found += budget_warnings(store, document)
        self._strays(store.folder, {"store.yaml", *(folder.name for folder in folders)})
        for path in store.leftovers():
            self._report(path, "was left by a write that was interrupted; the next write removes it.", warning=True)

    def _scenario(self, folder: Path, shared: StoreRecord | None) -> None:
        if read_or_report(partial(plain_folder, folder), self.found) is None:
            return
        self._strays(folder, {*SCENARIO_FILES, "votes"})
        document = self._read(folder / "scenario.yaml", ScenarioRecord)
        if document is None:
            return
        record = document.record
        machine = read_or_report(partial(machine_of, document, folder), self.found)
        if shared:
            self.found += scenario_problems(document, machine, folder.name, shared)
        for split in SPLITS:
            path, sheet = folder / f"{split}.png", record.sheet(split)
            pixels = read_or_report(partial(read_sheet, path, sheet, record.tile, record.gap), self.found)
            if pixels is not None:
                self.tiles[path] = [hashlib.sha256(tile.tobytes()).digest() for tile in pixels]
            if shared and sheet.images > shared.budgets.tiles:
                words = f"more than the budget of {shared.budgets.tiles} tiles in store.yaml."
                self.found.append(document.problem(("sheets", split, "images"), words, warning=True))
        votes = read_or_report(partial(plain_folder, folder / "votes"), self.found)
        for path in sorted(path for path in votes.glob("*") if path.name[0] != ".") if votes else ():
            if path.suffix != ".yaml":
                self._report(path, "is not a file of votes: move it away.")
            elif (cast := self._read(path, VotesRecord)) and shared:
                self.found += vote_problems(cast, record, shared.classes)

    def _read(self, path: Path, kind: type[R]) -> Document[R] | None:
        document = read_or_report(partial(read_document, path, kind), self.found)
        if document is not None and document.format < FORMAT:
            words = f"{document.format} is older than the present {FORMAT}: run pytest-defuse migrate."
            self.found.append(document.problem(("format",), words, warning=True))
        return document

    def _strays(self, folder: Path, known: Container[str]) -> None:
        for path in sorted(folder.iterdir()):
            if path.name[0] != "." and path.name not in known:
                self._report(path, "belongs to no scenario: move it away.")

    def _report(self, path: Path, words: str, *, warning: bool = False) -> None:
        self.found.append(Problem(str(path), words, warning=warning))


def budget_warnings(store: Store, document: Document[StoreRecord] | None = None) -> list[Problem]:
    """What exceeds a store's budgets of bytes and scenarios."""
    document = document or read_document(store.folder / "store.yaml", StoreRecord)
    budgets, found = document.record.budgets, []
    folders = store.folders()
    if len(folders) > budgets.scenarios:
        words = f"the store has {len(folders)}: remove rejected ones, or raise this budget."
        found.append(document.problem(("budgets", "scenarios"), words, warning=True))
    for path in (folder / f"{split}.png" for folder in folders for split in SPLITS):
        size = path.stat().st_size if path.is_file() else 0
        if size > budgets.sheet_bytes:
            words = f"has {size:,} bytes, more than the budget of {budgets.sheet_bytes:,} in store.yaml."
            found.append(Problem(str(path), words, warning=True))
    return found


def _duplicates(tiles: dict[Path, list[bytes]]) -> Iterator[Problem]:
    """Pairs of contact sheets that share tiles: no tile may be in two sheets."""
    holders: dict[bytes, list[Path]] = defaultdict(list)
    for path, digests in tiles.items():
        for digest in dict.fromkeys(digests):
            holders[digest].append(path)
    shared = Counter(pair for paths in holders.values() for pair in combinations(paths, 2))
    for (first, second), count in shared.items():
        words = f"{count} of its {len(tiles[second])} tiles are pixel for pixel in {first} too: remove one of the two."
        yield Problem(str(second), words)
