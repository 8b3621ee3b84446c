"""kill -9 between any two writes leaves a store that loads, and whose next write puts everything in order."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_defuse.scenarios.store import Store, migrate
from pytest_defuse.scenarios.verify import verify
from tests.scenarios.planting import STORE, plant, random_tiles

FIRST, SECOND = random_tiles(), random_tiles(6, seed=1)
FORMAT_1 = Path(__file__).parents[2] / "fixtures" / "formats" / "1" / "digits"
WRITES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.symlink", "os.truncate"}
"""Audit events of what changes files; opening a file for writing is one more."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def die_at(moment: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do some work in a process that is killed before its ``moment``-th change of a file; whether it was."""
    child = os.fork()
    if child == 0:
        left = moment

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
            if writes and str(folder) in str(arguments[0]):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def opened(store: Store) -> None:
    store.open_for(STORE)


def added(store: Store) -> None:
    plant(store, random_tiles(seed=2), random_tiles(seed=3), "8", "2")


def labelled(store: Store) -> None:
    store.update(store.folders()[0].name, status="accepted", label="3")


def voted(store: Store) -> None:
    store.vote(store.folders()[0].name, "anna", {"correction": {0: "3", 1: None}})


def migrated(store: Store) -> None:
    migrate([store])


def planted(store: Store) -> None:
    plant(store, FIRST, SECOND)


def copied(store: Store) -> None:
    shutil.copytree(FORMAT_1, store.folder)


@pytest.mark.parametrize(
    ("start", "work"),
    [
        (planted, labelled),
        (planted, voted),
        pytest.param(lambda store: None, opened, marks=pytest.mark.slow),
        pytest.param(planted, added, marks=pytest.mark.slow),
        pytest.param(copied, migrated, marks=pytest.mark.slow),
        pytest.param(copied, labelled, marks=pytest.mark.slow),
    ],
)
def test_a_killed_writer_leaves_a_store_that_loads(
    tmp_path: Path, start: Callable[[Store], None], work: Callable[[Store], None]
) -> None:
    moment, killed = 0, True
    while killed:
        store = Store(tmp_path / str(moment) / "digits")
        start(store)
        before = store.scenarios()
        killed = die_at(moment, store.folder, partial(work, store))
        after = store.scenarios()
        assert {scenario.id for scenario in before} <= {scenario.id for scenario in after}
        if work is migrated:
            assert after == before
        for scenario in after:
            scenario.pixels("held_out")
            scenario.votes()
        if store.exists():
            assert all(problem.warning for problem in verify([store]))
        work(store)
        migrate([store])
        assert verify([store]) == []
        assert [path.name for path in store.folder.glob(".*") if path.name.startswith(".new-")] == []
        moment += 1
    assert moment > 4
