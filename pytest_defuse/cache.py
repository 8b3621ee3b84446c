"""Trained networks that need not be trained again: safetensors files outside what git tracks."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pytest_defuse.files import replace_file, replace_text


def cached_weights(network: nn.Module, file: Path, train: Callable[[], None]) -> None:
    """Fill ``network`` from ``file``, or train it and write the file.

    A damaged file counts as none. The folder ignores itself in git, as pytest's own cache does.
    """
    with suppress(FileNotFoundError, SafetensorError):
        network.load_state_dict(load_file(file))
        return
    train()
    if not (ignore := file.parent / ".gitignore").exists():
        replace_text(ignore, "*\n")
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    replace_file(file, lambda temporary: save_file(state, temporary))
