"""What can be wrong with a file of a store, and how its bytes are read."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_defuse.runtime.errors import DefuseError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a store, in one line."""

    file: str
    words: str
    line: int | None = None
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:" if self.line else self.file
        return f"{place} {'warning: ' if self.warning else ''}{self.words}"


class StoreError(DefuseError):
    """Problems that make a store unusable."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Each problem is reported once."""
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))


def refused(file: Path | str, words: str) -> StoreError:
    """The error that a file cannot be used."""
    return StoreError([Problem(str(file), f"{words}.")])


def refuse(problems: Iterable[Problem]) -> None:
    """Raise a StoreError if there is a problem."""
    if problems := list(problems):
        raise StoreError(problems)


def plain_bytes(path: Path, maximum: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        StoreError: it is missing, larger than ``maximum`` bytes, a symbolic link, no file, or a Git LFS pointer.
    """
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            # Another clone does not have the target, or has a different one.
            raise refused(path, "is a symbolic link: put the file itself in its place")
        if not stat.S_ISREG(status.st_mode):
            raise refused(path, "is not a file: restore it from git")
        if status.st_size > maximum:
            raise refused(path, f"has {status.st_size:,} bytes, at most {maximum:,} are read: restore it from git")
        return without_lfs_pointer(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise refused(path, "is missing: restore it from git, or remove the folder") from None
    except OSError as error:
        raise refused(path, f"cannot be read ({error.strerror}): restore it from git") from error


def without_lfs_pointer(data: bytes, file: str) -> bytes:
    """The content of a file.

    Raises:
        StoreError: it is only a Git LFS pointer.
    """
    if data.startswith(LFS_POINTER):
        raise refused(file, "is a Git LFS pointer, not the file: run 'git lfs pull'")
    return data
