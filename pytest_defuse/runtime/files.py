"""Files that are either whole or not there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pytest_defuse.runtime.errors import DefuseError


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file in ``path``'s folder, then put it in ``path``'s place.

    A reader sees the old file or the new one, never a part; after an error the old one stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write UTF-8 text with newline line ends to ``path``, whole or not at all."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def append_text(path: Path, text: str) -> None:
    """Add UTF-8 text to the end of a file that others write to as well, such as a job's summary."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def check_writable(folder: Path, what: str) -> None:
    """Make sure that a file can be written to a folder, before work whose outcome goes there.

    Raises:
        DefuseError: it cannot; ``what`` names the file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DefuseError(
            f"{folder} cannot be written to ({error.strerror}), and {what} goes there: make it writable."
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
