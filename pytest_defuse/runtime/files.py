"""Files that are written completely or not at all."""

import glob
import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pytest_defuse.runtime.errors import DefuseError


def temporary_name(name: str, code: str = "[0-9a-f]" * 8) -> str:
    """The name of the temporary file from which :func:`replace_file` makes a file.

    Without a code it is the glob pattern that finds what killed writers left, and no file of an editor.
    """
    return f".{name}.{code}"


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file in the same folder, then rename it to ``path``.

    A reader sees the old file or the new one, never a part of it; after an error the old file is unchanged. A symbolic
    link stays, and its target is replaced. Devices, pipes and the output of this process, such as ``/dev/stdout``, are
    written to.

    Args:
        write: writes the file at the path that it is given.
    """
    if (stream := _stream(path)) is not None:
        with os.fdopen(stream, "wb") as output, tempfile.TemporaryDirectory() as folder:
            write(Path(folder, "file"))
            output.write(Path(folder, "file").read_bytes())
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name, secrets.token_hex(4)))
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # as of any new file: safetensors writes files that only their owner can read
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())  # or a power failure could leave the new name on an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers left beside a file that one process at a time writes with :func:`replace_file`."""
    target = Path(os.path.realpath(path))
    for leftover in target.parent.glob(temporary_name(glob.escape(target.name))):
        leftover.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write UTF-8 text with newline line endings, as :func:`replace_file` does.

    Surrogates, which UTF-8 does not have, are escaped: they come from names of files that are not UTF-8.
    """
    data = text.encode(errors="backslashreplace")
    replace_file(path, lambda temporary: temporary.write_bytes(data))


def _stream(path: Path) -> int | None:
    """A new descriptor of a device, a pipe or the output of this process; None for a file, a folder or nothing."""
    try:
        status = path.stat()
    except OSError:
        return None
    for output in (1, 2):
        with suppress(OSError):  # it may be closed
            if os.path.samestat(status, os.fstat(output)):
                return os.dup(output)  # shares its position: later output does not overwrite the text
    return None if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else os.open(path, os.O_WRONLY)


def append_text(path: Path, text: str) -> None:
    """Append UTF-8 text to a file that other programs write to as well, such as a job's summary."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def check_writable(folder: Path, what: str) -> None:
    """Check that a file can be written to a folder, before the work whose result goes there.

    Args:
        what: names the file in the message.

    Raises:
        DefuseError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DefuseError(
            f"{what} cannot be written to {folder} ({error.strerror}): make the folder writable."
        ) from error
