"""Work shared by the processes of one session: each piece is computed by one of them."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_defuse.runtime.files import replace_text

Pieces = Mapping[str, Callable[[], Any]]
"""Functions that return JSON values, by keys that identify the results and can be file names."""


@dataclass(frozen=True)
class Sharing:
    """One process's part in shared work.

    Attributes:
        folder: keeps results during the session; None in a session of one process.
        worker: the process's number, from 0.
    """

    folder: Path | None = None
    worker: int = 0

    def results(self, pieces: Pieces) -> list[Any]:
        """The results of all pieces, in their order, whichever process computes them."""
        if self.folder is None:
            return [work() for work in pieces.values()]
        # Each process starts at another piece and first skips those that others compute, so they work in parallel.
        start = self.worker % max(1, len(pieces))
        keys = [*list(pieces)[start:], *list(pieces)[:start]]
        found: dict[str, Any] = {}
        for wait in (False, True):
            for key in keys:
                if key not in found and (locked := self._locked(key, wait)):
                    with locked:
                        found[key] = self._result(key, pieces[key])
        return [found[key] for key in pieces]

    def _locked(self, key: str, wait: bool) -> AbstractContextManager[Any] | None:
        """The acquired lock of a piece; None if another process holds it and ``wait`` is false."""
        assert self.folder is not None
        try:
            return FileLock(self.folder / f"{key}.lock").acquire(blocking=wait)
        except Timeout:
            return None

    def _result(self, key: str, work: Callable[[], Any]) -> Any:
        assert self.folder is not None
        file = self.folder / f"{key}.json"
        if not file.exists():
            replace_text(file, json.dumps(work()))
        return json.loads(file.read_text(encoding="utf-8"))
