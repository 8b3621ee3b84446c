"""Work that the processes of one session share: each piece is done once, by whoever comes to it first."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_defuse.runtime.files import replace_text

Pieces = Mapping[str, Callable[[], Any]]
"""Work by its key, which says all that its outcome, a JSON value, depends on; it can be a file's name."""


@dataclass(frozen=True)
class Sharing:
    """How one process of a session shares work.

    Attributes:
        folder: where outcomes lie during the session; None in a session of one process.
        worker: this process's number, from 0.
    """

    folder: Path | None = None
    worker: int = 0

    def outcomes(self, pieces: Pieces) -> list[Any]:
        """The outcome of every piece, in order, whichever process did the work."""
        if self.folder is None:
            return [work() for work in pieces.values()]
        # Each process starts elsewhere and first passes over what others are at: so they work side by side.
        start = self.worker % max(1, len(pieces))
        keys = [*list(pieces)[start:], *list(pieces)[:start]]
        found: dict[str, Any] = {}
        for wait in (False, True):
            for key in keys:
                if key not in found and (locked := self._locked(key, wait)):
                    with locked:
                        found[key] = self._outcome(key, pieces[key])
        return [found[key] for key in pieces]

    def _locked(self, key: str, wait: bool) -> AbstractContextManager[Any] | None:
        """A piece's lock, held; None where another process has it and this one does not wait."""
        assert self.folder is not None
        try:
            return FileLock(self.folder / f"{key}.lock").acquire(blocking=wait)
        except Timeout:
            return None

    def _outcome(self, key: str, work: Callable[[], Any]) -> Any:
        assert self.folder is not None
        file = self.folder / f"{key}.json"
        if not file.exists():
            replace_text(file, json.dumps(work()))
        return json.loads(file.read_text(encoding="utf-8"))
