"""The cache: files that git ignores, written under a lock and checked when they are read."""

import glob
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_file, replace_text, temporary_name
from pytest_defuse.runtime.fingerprint import agree, fingerprint

T = TypeVar("T")
Tensors = Mapping[str, Tensor]
Say = Callable[[str], object]
"""Takes a sentence for the user, as :meth:`Progress.say` does."""
NO_OUTPUTS: Tensors = {}
ABANDONED = 30 * 86_400
"""Unfinished work counts as abandoned after so many seconds without a write. Our choice."""
OTHER_OUTPUTS = "depends on {}, which has the same weights but now gives other outputs for the same images"
_OUTPUTS, _CHECKSUM, _MODELS = "outputs of ", "pytest-defuse checksum", "models.safetensors"


class UnusableError(Exception):
    """Why a file is not reused, as the predicate of a sentence: ``is damaged``."""


def get_or_make(file: Path, read: Callable[[], T], make: Callable[[], object], say: Say, *, wait: bool = True) -> T:
    """Read a file, or make it first; of several processes one makes it while the others wait.

    A file that can be read is read without a lock, so it may be on a read-only disk.

    Args:
        read: raises FileNotFoundError or :class:`UnusableError` where the file must be made.
        make: writes the file, whole or not at all.
        wait: for a process that is making the file.

    Raises:
        filelock.Timeout: another process is making the file, and ``wait`` is false.
        DefuseError: the file cannot be written.
    """
    with suppress(FileNotFoundError, UnusableError):  # it is made below
        return read()
    with locked(file, say, wait=wait):
        try:
            return read()  # another process may have made it in the meantime
        except (FileNotFoundError, UnusableError) as reason:
            if isinstance(reason, UnusableError):
                say(f"{file} {reason}: it is computed again")
        make()
        with writing(file):
            try:
                return read()
            except UnusableError as reason:
                raise OSError(f"what was written {reason}") from reason


def cached_weights(
    network: nn.Module, file: Path, train: Callable[[], None], say: Say, outputs: Tensors = NO_OUTPUTS
) -> None:
    """Load the weights of a network, or train it and write them; ``outputs`` as in :func:`read_tensors`."""

    def make() -> None:
        train()
        write_tensors(network.state_dict(), file, outputs)
        _remove_abandoned(file.parent)

    def read() -> dict[str, Tensor]:
        tensors, expected = read_tensors(file, outputs), network.state_dict()
        shapes = [{name: value.shape for name, value in values.items()} for values in (tensors, expected)]
        if shapes[0] != shapes[1]:
            raise UnusableError("is of another network")
        return tensors

    network.load_state_dict(get_or_make(file, read, make, say))


def read_tensors(file: Path, outputs: Tensors = NO_OUTPUTS) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU; a large file is mapped into memory.

    Args:
        outputs: outputs for fixed images of the models that the tensors depend on, by the models' names; see
            :class:`pytest_defuse.subject.identity.Identity`.

    Raises:
        FileNotFoundError: there is no file.
        UnusableError: the file is damaged, or its models had other outputs.
    """
    try:
        with safe_open(file, "pt") as stored:
            names = stored.keys()
            tensors = {name: stored.get_tensor(name) for name in names}
            checksum = (stored.metadata() or {}).get(_CHECKSUM)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from error
    except SafetensorError as error:
        raise UnusableError("is damaged") from error
    if checksum != fingerprint("file", tensors=tensors):
        raise UnusableError("is damaged")
    for name, expected in outputs.items():
        if not agree(expected, tensors.get(_OUTPUTS + name)):
            raise UnusableError(OTHER_OUTPUTS.format(name))
    return {name: value for name, value in tensors.items() if not name.startswith(_OUTPUTS)}


def write_tensors(tensors: Tensors, file: Path, outputs: Tensors = NO_OUTPUTS) -> None:
    """Write a safetensors file with a checksum, whole or not at all; :func:`read_tensors` reads it."""
    stored = {**tensors, **{_OUTPUTS + name: value for name, value in outputs.items()}}
    # Copies, because tied weights share memory, and a safetensors file cannot.
    stored = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in stored.items()}
    metadata = {_CHECKSUM: fingerprint("file", tensors=stored)}
    with writing(file):
        make_folder(file.parent)
        replace_file(file, lambda temporary: save_file(stored, temporary, metadata))


def folder_for(parent: Path, key: str, outputs: Tensors, say: Say) -> Path:
    """A folder for unfinished work: an existing one of this key and these outputs, or a new one.

    Folders of the same key and other outputs are kept, because another process may use them; so is other work until
    nobody has continued it for a month.
    """
    for file in sorted(parent.glob(f"{key}-*/{_MODELS}")):
        with suppress(FileNotFoundError):  # another process may have finished, and removed it
            try:
                read_tensors(file, outputs)
                return file.parent
            except UnusableError as reason:
                say(f"the work in {file.parent} is not continued: it {reason}")
    _remove_abandoned(parent)
    folder = parent / f"{key}-{fingerprint('outputs', outputs=outputs)[:8]}"
    write_tensors({}, folder / _MODELS, outputs)
    return folder


def _remove_abandoned(folder: Path) -> None:
    """Remove unfinished work that nobody has continued for a month: folders of :func:`folder_for`, and states."""
    for file in (*folder.glob(f"*/{_MODELS}"), *folder.glob("*.state")):
        work = file.parent if file.name == _MODELS else file
        with suppress(OSError, UnusableError):  # removed by another process, or read-only; not written by this package
            if time.time() - max(path.stat().st_mtime for path in (work, *work.glob("*"))) > ABANDONED:
                read_tensors(file)
                shutil.rmtree(work) if work.is_dir() else work.unlink()


@contextmanager
def locked(file: Path, say: Say, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file, a second file that is removed afterwards, and remove what killed writers left."""
    lock = FileLock(file.with_name(f"{file.name}.lock"))
    with writing(file):
        make_folder(file.parent)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise
            say(f"waiting for another process to finish computing {file.name}")
            lock.acquire()
    try:
        for leftover in file.parent.glob(temporary_name(f"{glob.escape(file.stem)}.*")):
            with suppress(OSError):  # a read-only disk
                leftover.unlink()
        yield
    finally:
        # A process that waits for this file, and one that creates it again, may now both hold the lock. That does no
        # harm: both compute the same file, and each writes it whole.
        with suppress(OSError):  # Windows removes no open file; there releasing the lock removes it
            Path(lock.lock_file).unlink()
        lock.release()


def make_folder(folder: Path) -> None:
    """Make a folder that git ignores, as pytest does for its cache; an existing .gitignore is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (ignore := folder / ".gitignore").exists():
        replace_text(ignore, "*\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a DefuseError of one sentence."""
    try:
        yield
    except Timeout:
        raise
    except (OSError, SafetensorError) as error:
        raise DefuseError(
            f"{path} cannot be written ({error}): free disk space, or name another folder with --defuse-cache. "
            "Finished work is kept, and the same command continues it."
        ) from error
