"""Work shared by the processes of one session: each piece is computed by one of them."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from pytest_defuse.runtime.cache import get_or_make
from pytest_defuse.runtime.files import replace_text
from pytest_defuse.runtime.progress import Progress

Pieces = Mapping[str, Callable[[], Any]]
"""Functions that return JSON values, by keys that identify the results and can be file names."""


@dataclass(frozen=True)
class Sharing:
    """How one process takes part in shared work.

    Attributes:
        folder: contains results during the session; None in a session of one process.
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
                if key not in found:
                    with suppress(Timeout):  # another process computes it
                        found[key] = _shared(self.folder / f"{key}.json", pieces[key], wait)
        return [found[key] for key in pieces]


def _shared(file: Path, work: Callable[[], Any], wait: bool) -> Any:
    def read() -> Any:
        return json.loads(file.read_text(encoding="utf-8"))

    return get_or_make(file, read, lambda: replace_text(file, json.dumps(work())), Progress().say, wait=wait)
