"""What can be wrong with a file of a store, and how its bytes are read."""

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.escaping import visible
from pytest_defuse.runtime.files import replace_file
from pytest_defuse.runtime.validation import shortened

T = TypeVar("T")
MAX_PROBLEMS = 20
"""Maximum number of errors that are reported of one file: a screen of them. Our choice."""
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
        return visible(f"{place} {'warning: ' if self.warning else ''}{shortened(self.words, 600)}")


class StoreError(DefuseError):
    """Problems that make a store unusable."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Each problem is reported once."""
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))


class ChangedError(DefuseError):
    """A scenario.yaml is no longer the one on which a decision or a vote was based; nothing was written."""


def store_error(file: PurePath | str, words: str, line: int | None = None) -> StoreError:
    """The error that a file cannot be used."""
    return StoreError([Problem(str(file), f"{words}.", line)])


def first_problems(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The first problems of a file; a sentence in place of the others, which may be thousands."""
    for number, problem in enumerate(problems):
        if number == MAX_PROBLEMS:
            yield Problem(problem.file, f"has more than {MAX_PROBLEMS} errors: correct these first.")
            return
        yield problem


def raise_if_any(problems: Iterable[Problem]) -> None:
    """Raise a StoreError if there is a problem."""
    if problems := list(problems):
        raise StoreError(problems)


def read_or_report(read: Callable[[], T], problems: list[Problem]) -> T | None:
    """The result of ``read``, or None after a StoreError, whose problems are added to ``problems``."""
    try:
        return read()
    except StoreError as error:
        problems += error.problems
        return None


def listed(names: Sequence[str], maximum: int = 20) -> str:
    """Names in a sentence; of many, the first ``maximum``."""
    more = f" and {len(names) - maximum} more" if len(names) > maximum else ""
    return ", ".join(names[:maximum]) + more


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """What to say about a name that is not a class."""
    return f"{shortened(repr(name))} is not one of the classes {listed(classes)}."


def plain_bytes(path: Path, maximum: int) -> bytes:
    """The bytes of a regular file."""
    try:
        status = plain_file(path).lstat()
        if not stat.S_ISREG(status.st_mode):
            raise store_error(path, "is not a file: restore it from git")
        check_size(status.st_size, maximum, path)
        return path.read_bytes()
    except FileNotFoundError:
        raise store_error(path, "is missing: restore it from git, or remove the folder") from None
    except OSError as error:
        raise store_error(path, f"cannot be read ({error.strerror}): restore it from git") from error


def write_plain(path: Path, data: bytes) -> None:
    """Replace a file of a store; nothing is written through a symbolic link, which may lead out of the store."""
    plain_folder(path.parent)
    plain_file(path)
    replace_file(path, lambda temporary: temporary.write_bytes(data))


def check_size(size: int, maximum: int, file: PurePath | str) -> None:
    """Check the number of bytes of a file, before it is read and before it is written."""
    if size > maximum:
        words = f"has {size:,} bytes, more than the limit of {maximum:,}"
        raise store_error(file, f"{words}: shorten it, or restore it from git")


def plain_file(path: Path) -> Path:
    """The file, which must not be a symbolic link: another clone has another target or none."""
    if path.is_symlink():
        raise store_error(path, "is a symbolic link: put the file itself in its place")
    return path


def plain_folder(folder: Path) -> Path:
    """The folder, which must not lead out of the store."""
    if folder.is_symlink():
        raise store_error(folder, "is a symbolic link: put the folder itself in its place")
    return folder


def without_lfs_pointer(data: bytes, file: str) -> bytes:
    """The content of a file."""
    if data.startswith(LFS_POINTER):
        raise store_error(file, "is a Git LFS pointer, not the file: run 'git lfs pull'")
    return data
