"""A command that is killed at any of its file operations, or at any time, loses nothing and can be run again."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_defuse.scenarios.store import Store
from tests.plugin.conftest import CONFTEST, TESTS, sheet, tiles
from tests.scenarios.planting import plant
from tests.siege.commands import BASELINE, COMMANDS, Command, Siege
from tests.siege.traced import kill_at, run

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"), pytest.mark.slow]
KILLS = 200
IN_CI = 48
"""Operations of each command at which it is killed in CI, spread over all; the external test kills it at each one."""


def check_kills(siege: Siege, numbers: range) -> None:
    for number in numbers:
        with siege.fresh() as folder:
            end = run(folder, siege.command.work, kill_at(number))
            assert end.code is None, end
            siege.check(folder)


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_file_operations(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    siege = Siege(COMMANDS[name], tmp_path / "files")
    count = siege.operations()
    assert count > 4
    numbers = range(0, count, -(-count // IN_CI))
    check_kills(siege, numbers)
    with capsys.disabled():
        print(f"{name}: killed at {len(numbers)} of {count} operations")


@pytest.mark.external
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_each_file_operation(tmp_path: Path, name: str) -> None:
    siege = Siege(COMMANDS[name], tmp_path / "files")
    check_kills(siege, range(siege.operations()))


def _project(folder: Path) -> None:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_model.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    correction, held_out = tiles(0.6, 0), tiles(0.6, 1)
    accepted = {
        "status": "accepted",
        "label": "bright",
        "sheets": {"correction": sheet(correction), "held_out": sheet(held_out)},
    }
    store = Store(folder / "fixtures" / "toy")
    plant(store, correction, held_out, "bright", "dark", ("dark", "bright"), **accepted)


def _gate() -> int:
    arguments = ["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--defuse-save-baseline={BASELINE}"]
    return subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL).returncode


RUNS = {**COMMANDS, "a gate that saves a baseline": Command(_project, _gate)}


@pytest.mark.external
def test_killed_at_random_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command as often as the others, at times that cover its whole run."""
    generator, killed = random.Random(0), 0
    for name, command in RUNS.items():
        siege, own = Siege(command, tmp_path / name), 0
        with siege.fresh() as folder:
            start = time.monotonic()
            run(folder, siege.command.work)
            seconds = time.monotonic() - start
        while own < -(-KILLS // len(RUNS)):
            with siege.fresh() as folder:
                own += killed_after(generator.uniform(0, seconds), folder, siege)
                siege.check(folder)
            assert siege.tries < 10 * KILLS
        killed += own
    with capsys.disabled():
        print(f"{killed} kills at random times")
    assert killed >= KILLS


def killed_after(seconds: float, folder: Path, siege: Siege) -> bool:
    """Run a command and kill it after some seconds; whether it was still running."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.chdir(folder)
            siege.command.work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):  # before or after it had a group of processes
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
