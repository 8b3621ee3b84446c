"""kill -9 between any two writes leaves a store that loads, and whose next write puts everything in order."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pytest_defuse.scenarios.schema import StoreRecord, Tile
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from tests.scenarios.planting import DIGITS, plant, random_tiles

FIRST, SECOND = random_tiles(), random_tiles(6, seed=1)
WRITES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.symlink", "os.truncate"}
"""Audit events of what changes files, or may: a reading open more or less only adds a moment to be killed at."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def die_at(moment: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do some work in a process that is killed before its ``moment``-th change of a file; whether it was."""
    child = os.fork()
    if child == 0:
        left = moment

        def audit(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in WRITES and str(folder) in str(arguments[0]):
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
    store.open_for(DIGITS, StoreRecord(format=1, classes=DIGITS, tile=Tile(mode="L", width=8, height=8)))


def added(store: Store) -> None:
    plant(store, random_tiles(seed=2), random_tiles(seed=3), "8", "2")


def labelled(store: Store) -> None:
    store.update(store.folders()[0].name, status="accepted", label="3")


def voted(store: Store) -> None:
    store.vote(store.folders()[0].name, "anna", {"correction": {0: "3", 1: None}})


@pytest.mark.parametrize("work", [opened, added, labelled, voted])
def test_a_killed_writer_leaves_a_store_that_loads(tmp_path: Path, work: Callable[[Store], None]) -> None:
    moment, killed = 0, True
    while killed:
        store = Store(tmp_path / str(moment) / "digits")
        if work is not opened:
            plant(store, FIRST, SECOND)
        known = {scenario.id for scenario in store.scenarios()}
        killed = die_at(moment, store.folder, partial(work, store))
        assert known <= {scenario.id for scenario in store.scenarios()}
        for scenario in store.scenarios():
            scenario.pixels("held_out")
            scenario.votes()
        if store.exists():
            assert all(problem.warning for problem in verify([store]))
        work(store)
        assert verify([store]) == []
        assert [path.name for path in store.folder.glob(".*") if path.name.startswith(".new-")] == []
        moment += 1
    assert moment > 4
