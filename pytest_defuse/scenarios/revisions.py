"""A store at a git revision, read from git's objects: nothing is checked out."""

import io
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.problems import LFS_POINTER


@dataclass(frozen=True)
class Repository:
    """A git repository with the root ``top``, and the folder of the store, relative to it."""

    top: Path
    folder: PurePosixPath

    @staticmethod
    def around(root: Path) -> "Repository":
        """The repository that holds the store ``root``, which need not exist now."""
        start = root.absolute()
        while not start.is_dir():
            start = start.parent
        top = Path(_git(start, "rev-parse", "--show-toplevel").decode().rstrip("\n"))
        folder = Path(start.resolve(), root.absolute().relative_to(start)).relative_to(top.resolve())
        return Repository(top, PurePosixPath(folder.as_posix()))

    def commit(self, name: str) -> str:
        """The full hash of a revision."""
        missing = f"There is no git revision {name!r} here: fetch it first (a shallow clone has few of them)."
        arguments = ("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
        return _git(self.top, *arguments, failure=missing).decode().strip()

    def merge_base(self, base: str, head: str) -> str:
        """The last commit that two have in common."""
        missing = f"{base} and {head} have no common commit here: fetch more of their history."
        return _git(self.top, "merge-base", base, head, failure=missing).decode().strip()


@dataclass(frozen=True)
class Revision:
    """The files of the store at one commit."""

    repository: Repository
    commit: str

    @cached_property
    def blobs(self) -> Mapping[PurePosixPath, str]:
        """The plain files of the store, by path relative to it, with the hashes of their contents.

        Symbolic links are left out: their targets do not belong to the revision.
        """
        folder = self.repository.folder
        below = [] if folder == PurePosixPath() else ["--", f"{folder}/"]
        listing = _git(self.repository.top, "ls-tree", "-r", "-z", "--full-tree", self.commit, *below)
        found = {}
        for entry in listing.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            header, _, path = entry.partition("\t")
            mode, _, blob = header.split()
            if mode.startswith("100"):
                found[PurePosixPath(path).relative_to(folder)] = blob
        return found

    def contents(self, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, bytes]:
        """The contents of those files that this revision has, in one call of git."""
        present = [path for path in paths if path in self.blobs]
        names = "".join(f"{self.blobs[path]}\n" for path in present)
        reply = _git(self.repository.top, "cat-file", "--batch", stdin=names.encode())
        found, stream = {}, io.BytesIO(reply)
        for path in present:
            size = int(stream.readline().split()[-1])
            data = stream.read(size + 1)[:size]  # a newline follows
            found[path] = self._smudged(path) if data.startswith(LFS_POINTER) else data
        return found

    def _smudged(self, path: PurePosixPath) -> bytes:
        """The file behind a Git LFS pointer if Git LFS is set up; else the pointer."""
        place = self.repository.folder / path
        return _git(self.repository.top, "cat-file", "--filters", f"--path={place}", self.blobs[path])


def _git(folder: Path, *arguments: str, stdin: bytes = b"", failure: str = "") -> bytes:
    # In a hook, for example, GIT_DIR and GIT_INDEX_FILE name another repository than that of the folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, input=stdin, env=environment, capture_output=True, check=False)
    except FileNotFoundError:
        raise DefuseError("git is not installed: install it to compare revisions.") from None
    if done.returncode:
        detail = " ".join(done.stderr.decode(errors="replace").split()) or f"exit code {done.returncode}"
        raise DefuseError(failure or f"git {arguments[0]} failed in {folder} ({detail}).")
    return done.stdout
