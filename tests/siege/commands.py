"""Everything that writes to a store, the file of a baseline or an export, as work that can be repeated."""

import contextlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_defuse.cli import main
from pytest_defuse.discover.candidates import store_candidates
from pytest_defuse.gate.baseline import Baseline, SubjectBaseline, load_baseline, save_baseline
from pytest_defuse.gate.predictions import Predictions
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.exchange.ballots import SHEET_KEY, TILE_KEY
from pytest_defuse.scenarios.lookup import stores
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from tests.discover.test_candidates import SUBJECT, candidate, discovery
from tests.scenarios.planting import FIRST, SECOND, plant, random_tiles, with_predictions
from tests.siege.traced import run

STORE, BASELINE = Path("fixtures/digits"), Path("baseline.json")
FORMAT_1 = Path(__file__).parents[2] / "fixtures" / "formats" / "1" / "digits"


@dataclass(frozen=True)
class Command:
    """``prepare`` makes the files in a folder; ``work`` runs there, and returns an exit code."""

    prepare: Callable[[Path], object]
    work: Callable[[], int]


def _candidates(folder: Path) -> list[Scenario]:
    """A store of two candidates, one of which two annotators have voted on."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    store = Store(folder / STORE)
    first = with_predictions(plant(store, FIRST, SECOND))
    second = plant(store, random_tiles(seed=2), random_tiles(seed=3), "8", "2")
    for annotator in ("anna", "bob"):
        store.vote(first.id, annotator, {"correction": {0: "3", 1: "3", 2: None}})
    return [first, second]


def _ids() -> list[str]:
    return [folder.name for folder in Store(STORE).folders()]


def _answers(folder: Path) -> None:
    tasks = []
    for scenario in _candidates(folder):
        sheet = scenario.record.sheets.correction
        for tile in (0, 1):
            data = {TILE_KEY: f"{scenario.full_name}/correction/{tile}", SHEET_KEY: sheet.sha256}
            result = [{"type": "choices", "value": {"choices": ["3"]}}]
            tasks.append({"data": data, "annotations": [{"completed_by": who, "result": result} for who in (1, 2)]})
    (folder / "answers.json").write_text(json.dumps(tasks))


def _old_store(folder: Path) -> None:
    (folder / "pytest.ini").write_text("[pytest]\n")
    shutil.copytree(FORMAT_1, folder / STORE)


def _vote() -> int:
    Store(STORE).vote(_ids()[0], "carl", {"correction": {0: "5", 1: None}, "held_out": {0: "3"}})
    return 0


def _review() -> int:
    from tests.review.test_page import Page

    address = f"/scenarios/digits/{_ids()[0]}"
    reply = Page(STORE.parent).submit(address, {"label": "3", "notes": "three\nthrees"})
    for problem in re.findall("[^<>]*cannot be written[^<>]*", reply.text):
        print(problem.strip(), file=sys.stderr)
    return 0 if reply.status_code == 303 else 2


def _export() -> int:
    """An export that has its tasks is whole: another would need a new folder."""
    whole = Path("exported/digits/tasks.json").exists()
    return 0 if whole else main(["export", "label-studio", "exported", "--tiles", "1"])


def _store_candidates() -> int:
    found = discovery(candidate(seed=50), candidate(label=8, predicted=2, seed=51))
    store_candidates(Store(STORE), SUBJECT, found)
    return 0


def _baseline(count: int) -> Baseline:
    images = Predictions("1" * 64, ("3", "5") * count, (0.5, 0.75) * count)
    return Baseline({"digits": SubjectBaseline("f" * 64, {"3-as-5": images}, images)})


def _save_baseline() -> int:
    save_baseline(BASELINE, _baseline(200))
    return 0


def quietly(work: Callable[[], int]) -> Callable[[], int]:
    """Work that ends a DefuseError as the command line does."""

    def run() -> int:
        try:
            return work()
        except (DefuseError, OSError) as error:  # of a baseline that a run cannot write, the run makes a sentence
            print(error, file=sys.stderr)
            return 2

    return run


COMMANDS = {
    "label": Command(_candidates, lambda: main(["label", _ids()[0], "--label", "3"])),
    "reject two": Command(_candidates, lambda: main(["label", *_ids(), "--reject"])),
    "vote": Command(_candidates, quietly(_vote)),
    "votes --decide": Command(_candidates, lambda: main(["votes", "--decide"])),
    "review": Command(_candidates, quietly(_review)),
    "import": Command(_answers, lambda: main(["import", "label-studio", "answers.json"])),
    "export": Command(_candidates, _export),
    "migrate": Command(_old_store, lambda: main(["migrate"])),
    "label of an old format": Command(_old_store, lambda: main(["label", _ids()[0], "--reject"])),
    "store candidates": Command(_candidates, quietly(_store_candidates)),
    "store the first candidates": Command(lambda folder: None, quietly(_store_candidates)),
    "save a baseline": Command(lambda folder: save_baseline(folder / BASELINE, _baseline(2)), quietly(_save_baseline)),
}


def state(folder: Path) -> dict[str, Any]:
    """What was decided, found and saved, by name; it raises if a file cannot be read."""
    found: dict[str, Any] = {}
    for store in stores(folder / STORE.parent):
        assert all(problem.warning for problem in verify([store])), verify([store])
        for scenario in store.scenarios():
            found[scenario.id] = scenario.record, scenario.machine
            for split in ("correction", "held_out"):
                found[f"{scenario.id} {split}"] = scenario.pixels(split).tobytes()
            for vote in scenario.votes():
                found[f"{scenario.id} {vote.annotator}"] = vote
    if (folder / BASELINE).exists():
        found["baseline"] = load_baseline(folder / BASELINE)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, except for locks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Siege:
    """A command, the files before it, and the state and files after a run that was not disturbed."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.folder, self.tries = command, folder, 0
        self.template = folder / "template"
        self.template.mkdir(parents=True)
        self.command.prepare(self.template)
        self.before = state(self.template)
        with self.fresh() as after:
            self.run(after)
            self.after, self.files = state(after), files(after)
        assert self.files != files(self.template)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """A copy of the files before the command."""
        copy = self.folder / str(self.tries)
        self.tries += 1
        shutil.copytree(self.template, copy)
        yield copy
        shutil.rmtree(copy)

    def run(self, folder: Path) -> None:
        """Run the command in this process; it must succeed."""
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
            assert self.command.work() == 0

    def operations(self) -> int:
        """The number of file operations of the command."""
        with self.fresh() as folder:
            end = run(folder, self.command.work, lambda number: os.write(2, b".") and None)
        assert end.code == 0, end.errors
        return end.errors.count(".")

    def check(self, folder: Path) -> None:
        """Everything is as before the command or as after it, and the command that is run again finishes."""
        now = state(folder)
        assert self.before.keys() <= now.keys() <= self.before.keys() | self.after.keys()
        for name, value in now.items():
            assert value in (self.before.get(name), self.after.get(name)), name
        self.run(folder)
        assert files(folder) == self.files
