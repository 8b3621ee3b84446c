"""Trained networks that need not be trained again: safetensors files outside what git tracks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_file, replace_text


def cached_weights(network: nn.Module, file: Path, train: Callable[[], None]) -> None:
    """Fill ``network`` from ``file``, or train it and write the file; a damaged file counts as none.

    Raises:
        DefuseError: the file cannot be written.
    """
    tensors = read_tensors(file)
    if tensors is None:
        train()
        write_tensors(network.state_dict(), file)
    else:
        network.load_state_dict(tensors)


def read_tensors(file: Path) -> dict[str, Tensor] | None:
    """Tensors by name, on the CPU; None where the file is missing or damaged."""
    with suppress(FileNotFoundError, SafetensorError):
        return load_file(file)
    return None


def write_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the file whole or not at all. Its folder ignores itself in git, as pytest's own cache does.

    Raises:
        DefuseError: the folder cannot be written to, or the disk is full.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with writing(file):
        if not (ignore := file.parent / ".gitignore").exists():
            replace_text(ignore, "*\n")
        replace_file(file, lambda temporary: save_file(state, temporary, metadata))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence, as a DefuseError, why ``path`` cannot be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DefuseError(
            f"{path} cannot be written ({error}): make room, or name another folder with --defuse-cache. "
            "Nothing that was finished is lost: the same command goes on from there."
        ) from error
