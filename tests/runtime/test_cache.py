from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_defuse.runtime.cache import cached_weights
from pytest_defuse.runtime.errors import DefuseError


def untrained() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def fill(network: nn.Module, value: int) -> None:
    for tensor in network.state_dict().values():
        tensor.fill_(value)


def test_what_was_trained_is_loaded_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "net.safetensors"
    first, second = untrained(), untrained()
    cached_weights(first, file, lambda: fill(first, 7))
    cached_weights(second, file, lambda: pytest.fail("trained again"))
    assert all((tensor == 7).all() for tensor in second.state_dict().values())


def test_the_folder_ignores_itself_in_git(tmp_path: Path) -> None:
    cached_weights(untrained(), tmp_path / "cache" / "net.safetensors", lambda: None)
    assert (tmp_path / "cache" / ".gitignore").read_text() == "*\n"


def test_a_gitignore_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.png\n")
    cached_weights(untrained(), tmp_path / "net.safetensors", lambda: None)
    assert (tmp_path / ".gitignore").read_text() == "*.png\n"


def test_training_that_fails_leaves_nothing_to_load(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_weights(untrained(), tmp_path / "net.safetensors", fail)
    assert not list(tmp_path.iterdir())


def test_weights_that_share_or_skip_memory_are_written(tmp_path: Path) -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    first.weight = nn.Parameter(torch.arange(6.0).view(3, 2).T)
    cached_weights(first, tmp_path / "net.safetensors", lambda: None)
    cached_weights(second, tmp_path / "net.safetensors", lambda: None)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("content", [b"", b"truncated", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_file_is_trained_again(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "net.safetensors"
    file.write_bytes(content)
    first, second = untrained(), untrained()
    cached_weights(first, file, lambda: fill(first, 7))
    cached_weights(second, file, lambda: pytest.fail("trained again"))
    assert all((tensor == 7).all() for tensor in second.state_dict().values())


def test_a_folder_that_cannot_be_written_to_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(DefuseError, match=r"net\.safetensors cannot be written .*: make room, or name another folder"):
        cached_weights(untrained(), tmp_path / "cache" / "net.safetensors", lambda: None)
