import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pytest_defuse.runtime import cache
from pytest_defuse.runtime.cache import (
    UnusableError,
    cached_weights,
    folder_for,
    get_or_make,
    locked,
    read_tensors,
    write_tensors,
)
from pytest_defuse.runtime.errors import DefuseError

OUTPUTS = {"the judge": torch.tensor([[4.0, -1.0], [0.5, 2.0]])}


def untrained() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def fill(network: nn.Module, value: int) -> Callable[[], None]:
    def train() -> None:
        for tensor in network.state_dict().values():
            tensor.fill_(value)

    return train


def train(file: Path, value: int = 7, outputs: dict[str, Tensor] | None = None) -> tuple[int, list[str]]:
    """The value that a network holds which was to be filled with ``value``, and the sentences for the user."""
    network, sentences = untrained(), list[str]()
    cached_weights(network, file, fill(network, value), sentences.append, outputs or {})
    (found,) = {int(tensor.max()) for tensor in network.state_dict().values()}
    return found, sentences


def test_trained_weights_are_loaded_the_next_time(tmp_path: Path) -> None:
    assert train(tmp_path / "cache" / "net.safetensors", 7) == (7, [])
    assert train(tmp_path / "cache" / "net.safetensors", 8) == (7, [])


def test_a_hit_writes_nothing(tmp_path: Path) -> None:
    train(tmp_path / "net.safetensors")
    before = {file: file.stat().st_mtime_ns for file in [tmp_path, *tmp_path.iterdir()]}
    train(tmp_path / "net.safetensors")
    assert {file: file.stat().st_mtime_ns for file in [tmp_path, *tmp_path.iterdir()]} == before


@contextmanager
def without_privileges() -> Iterator[None]:
    """Act as the user nobody if the tests run as root, who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_read_only_folder_is_read_and_a_miss_is_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as name:  # unlike those of tmp_path, other users may enter its parents
        folder = Path(name)
        train(folder / "net.safetensors")
        folder.chmod(0o555)
        try:
            with without_privileges():
                assert train(folder / "net.safetensors", 8) == (7, [])
                with pytest.raises(DefuseError, match=r"other\.safetensors cannot be written .*name another folder"):
                    train(folder / "other.safetensors")
        finally:
            folder.chmod(0o700)


def test_the_folder_ignores_itself_in_git(tmp_path: Path) -> None:
    train(tmp_path / "cache" / "net.safetensors")
    assert (tmp_path / "cache" / ".gitignore").read_text() == "*\n"


def test_an_existing_gitignore_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.png\n")
    train(tmp_path / "net.safetensors")
    assert (tmp_path / ".gitignore").read_text() == "*.png\n"


def test_a_training_that_fails_leaves_nothing_but_the_gitignore(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_weights(untrained(), tmp_path / "net.safetensors", fail, pytest.fail)
    assert [file.name for file in tmp_path.iterdir()] == [".gitignore"]


def test_files_of_killed_writers_are_removed_and_others_are_kept(tmp_path: Path) -> None:
    left = {".net.safetensors.0a1b2c3d", ".net.state.00000000", "net.safetensors.lock"}
    others = {".net-2.safetensors.0a1b2c3d", ".net.safetensors.swp", "net.txt"}
    for name in left | others:
        (tmp_path / name).touch()
    train(tmp_path / "net.safetensors")
    assert {file.name for file in tmp_path.iterdir()} == {".gitignore", "net.safetensors"} | others


def a_network(folder: Path) -> Path:
    train(folder / "another.safetensors")
    return folder / "another.safetensors"


@pytest.mark.parametrize("start", [a_network, lambda folder: folder_for(folder, "d", {}, pytest.fail)])
def test_unfinished_work_is_removed_after_a_month_without_a_write(
    start: Callable[[Path], Path], tmp_path: Path
) -> None:
    abandoned, continued, new = (folder_for(tmp_path, key, {}, pytest.fail) for key in ("a", "b", "c"))
    for name in ("abandoned.state", "new.state"):
        write_tensors({}, tmp_path / name)
    (continued / "piece").touch()
    (tmp_path / "theirs").mkdir()
    others = [tmp_path / name for name in ("theirs/models.safetensors", "theirs.state", "net.safetensors")]
    for path in others:
        path.write_text("of another program")
    for path in (*abandoned.rglob("*"), abandoned, *continued.glob("m*"), tmp_path / "abandoned.state", *others):
        os.utime(path, (0, 0))
    os.utime(tmp_path / "new.state", (time.time() - 29 * 86_400,) * 2)
    before = set(tmp_path.iterdir())
    later = start(tmp_path)
    assert set(tmp_path.iterdir()) == before - {abandoned, tmp_path / "abandoned.state"} | {later}
    assert new.exists()


def test_weights_that_share_or_skip_memory_are_written(tmp_path: Path) -> None:
    tied = torch.arange(6.0).view(3, 2)
    write_tensors({"a": tied, "b": tied, "c": tied.T}, tmp_path / "net.safetensors")
    found = read_tensors(tmp_path / "net.safetensors")
    assert torch.equal(found["a"], tied)
    assert torch.equal(found["b"], tied)
    assert torch.equal(found["c"], tied.T)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_bit,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}"),
        lambda file: save_file(untrained().state_dict(), file),
    ],
    ids=["truncated", "a bit", "empty", "no header", "no checksum"],
)
def test_a_damaged_file_is_made_again_with_a_sentence(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = tmp_path / "net.safetensors"
    train(file)
    damage(file)
    assert train(file, 8) == (8, [f"{file} is damaged: it is computed again"])
    assert train(file, 9) == (8, [])


def test_a_file_that_is_gone_after_it_was_made_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    with pytest.raises(DefuseError, match=r"net\.safetensors cannot be written \(.*\): free disk space"):
        get_or_make(file, lambda: read_tensors(file), lambda: None, pytest.fail)
    with pytest.raises(DefuseError, match=r"net\.safetensors cannot be written .*what was written is damaged"):
        get_or_make(file, lambda: read_tensors(file), lambda: file.write_bytes(b"x"), pytest.fail)


def test_a_file_that_cannot_be_opened_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.safetensors"
    train(file)

    def refuse(*_: object) -> None:
        monkeypatch.undo()
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "safe_open", refuse)
    with pytest.raises(UnusableError, match=r"cannot be read \(Permission denied\)"):
        read_tensors(file)


def test_weights_are_reused_while_the_outputs_they_depend_on_are_equal_within_rounding(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    assert train(file, 7, OUTPUTS) == (7, [])
    assert train(file, 8, {name: value * 1.005 for name, value in OUTPUTS.items()}) == (7, [])
    value, (sentence,) = train(file, 8, {name: -value for name, value in OUTPUTS.items()})
    assert value == 8
    assert "depends on the judge, which has the same weights but now gives other outputs" in sentence
    assert train(file, 9, OUTPUTS | {"another": torch.zeros(1)})[0] == 9


def test_a_folder_that_cannot_be_written_to_is_one_sentence_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(DefuseError, match=r"net\.safetensors cannot be written .*: free disk space, or name another"):
        cached_weights(untrained(), tmp_path / "cache" / "net.safetensors", lambda: pytest.fail("trained"), pytest.fail)


PROGRAM = """
import os, sys, time
from pathlib import Path
import torch
from pytest_defuse.runtime.cache import get_or_make, read_tensors, write_tensors

folder, number = Path(sys.argv[1]), sys.argv[2]
file = folder / "net.safetensors"

def make():
    with (folder / "trained").open("a") as log:
        log.write(number)
    while not (folder / "finish").exists():
        time.sleep(0.01)
    write_tensors({"value": torch.tensor(int(number))}, file)

print(get_or_make(file, lambda: read_tensors(file), make, print)["value"].item())
"""


def started(folder: Path, number: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", PROGRAM, folder, str(number)], stdout=subprocess.PIPE, text=True)


def wait_for(file: Path, content: str) -> None:
    for _ in range(6000):
        if file.exists() and file.read_text() == content:
            return
        time.sleep(0.01)
    pytest.fail(f"{file} never held {content}")


@pytest.mark.slow
def test_of_two_processes_one_trains_and_the_other_waits(tmp_path: Path) -> None:
    with started(tmp_path, 1) as first:
        wait_for(tmp_path / "trained", "1")
        with started(tmp_path, 2) as second:
            assert second.stdout
            assert second.stdout.readline() == "waiting for another process to finish computing net.safetensors\n"
            (tmp_path / "finish").touch()
            assert [second.communicate()[0], first.communicate()[0]] == ["1\n", "1\n"]
    assert (tmp_path / "trained").read_text() == "1"
    assert not (tmp_path / "net.safetensors.lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_the_lock_of_a_killed_process_can_be_acquired(tmp_path: Path) -> None:
    with started(tmp_path, 1) as first:
        wait_for(tmp_path / "trained", "1")
        first.send_signal(signal.SIGKILL)
    assert (tmp_path / "net.safetensors.lock").exists()
    assert train(tmp_path / "net.safetensors", 3) == (3, [])
    assert not (tmp_path / "net.safetensors.lock").exists()


def test_without_waiting_a_held_lock_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    with locked(file, pytest.fail), pytest.raises(TimeoutError):
        get_or_make(file, lambda: read_tensors(file), lambda: pytest.fail("made"), pytest.fail, wait=False)


def test_weights_of_another_network_are_computed_again(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    for state in ({"0.weight": torch.zeros(2, 1, 3, 3)}, {**untrained().state_dict(), "0.bias": torch.zeros(3)}):
        write_tensors(state, file)
        assert train(file, 5) == (5, [f"{file} is of another network: it is computed again"])
