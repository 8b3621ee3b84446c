"""Full and read-only disks: a command ends with a sentence, loses nothing, and finishes once there is space."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_defuse.cli import main
from tests.siege.commands import COMMANDS, STORE, Siege
from tests.siege.traced import End, fail_at, run

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"), pytest.mark.slow]
IN_CI = 4
"""Operations of each command that fail in CI, spread over all; the external test lets each one fail."""


def check_end(end: End) -> None:
    """The command has finished, or says in a few lines what is wrong."""
    assert end.code in (0, 2), end
    assert "Traceback" not in end.errors
    if end.code == 2:
        assert 1 <= end.errors.count("\n") <= 3, end.errors
        assert any(os.strerror(number) in end.errors for number in (errno.ENOSPC, errno.EROFS, errno.EFBIG)), end.errors


def fails(siege: Siege, numbers: range) -> None:
    for number in numbers:
        for error, again in ((errno.ENOSPC, False), (errno.EROFS, True)):
            with siege.fresh() as folder:
                check_end(run(folder, siege.command.work, fail_at(number, error, again=again)))
                siege.check(folder)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_operation_that_fails_loses_nothing(tmp_path: Path, name: str) -> None:
    siege = Siege(COMMANDS[name], tmp_path / "files")
    count = siege.operations()
    fails(siege, range(0, count, max(1, count // IN_CI)))


@pytest.mark.external
@pytest.mark.parametrize("name", COMMANDS)
def test_each_file_operation_that_fails_loses_nothing(tmp_path: Path, name: str) -> None:
    siege = Siege(COMMANDS[name], tmp_path / "files")
    fails(siege, range(siege.operations()))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_is_written_in_part_loses_nothing(tmp_path: Path, name: str) -> None:
    """A limit of the size of files ends a write in its middle, as a full disk does."""
    siege = Siege(COMMANDS[name], tmp_path / "files")
    for size in (0, 1, 200):
        with siege.fresh() as folder:
            end = run(folder, limited(siege.command.work, size))
            assert end.code == 2 or name == "import", end
            check_end(end)
            siege.check(folder)


def limited(work: Callable[[], int], size: int) -> Callable[[], int]:
    def within() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return work()

    return within


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.name == "nt", reason="needs mount")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_loses_nothing(disk: Path, name: str) -> None:
    siege = Siege(COMMANDS[name], disk)
    for pages in (0, 1, 2):
        with siege.fresh() as folder:
            with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):  # the disk is full
                while filler.write(bytes(4096)):
                    pass
            os.truncate(disk / "filler", (disk / "filler").stat().st_size - 4096 * pages)
            check_end(run(folder, siege.command.work))
            (disk / "filler").unlink()
            siege.check(folder)


@pytest.mark.skipif(os.name == "nt", reason="needs mount")
def test_a_read_only_disk_is_read(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    siege = Siege(COMMANDS["label"], disk)
    store = siege.template / STORE.parent
    scenario = next((siege.template / STORE).glob("*-as-*")).name
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert [main([command, "--defuse-store", str(store)]) for command in ("list", "verify", "votes")] == [0, 0, 0]
    capsys.readouterr()
    assert main(["label", scenario, "--label", "3", "--defuse-store", str(store)]) == 2
    message = capsys.readouterr().err
    assert f"cannot be written ({os.strerror(errno.EROFS)}): free disk space, or make the folder writable" in message
    assert message.count("\n") == 1
