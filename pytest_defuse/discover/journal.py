"""The journal of a search: its finished pieces on disk, so that an interrupted search resumes."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import Timeout
from torch import Tensor

from pytest_defuse.runtime.cache import (
    NO_OUTPUTS,
    Tensors,
    folder_for,
    get_or_make,
    read_tensors,
    write_tensors,
    writing,
)
from pytest_defuse.runtime.files import replace_text
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress

Piece = dict[str, Tensor]

POLL_SECONDS = 0.1
"""Wait before checking again for pieces that other processes are computing, which takes seconds each. Our choice."""


class Journal:
    """A folder with the finished pieces of one search, each a safetensors file that is complete or missing.

    A search that was killed and restarted computes only the missing pieces. Processes that run the same search at the
    same time share the work: each piece is computed under a lock, and a process that finds it locked takes another.

    Args:
        parent: folder of all searches.
        about: everything that the search depends on, by name, as for
            :func:`pytest_defuse.runtime.fingerprint.fingerprint`.
        outputs: of the models, as for :func:`pytest_defuse.runtime.cache.read_tensors`. A search that differs in
            ``about`` or ``outputs`` has another folder.
    """

    def __init__(
        self, parent: Path, about: Mapping[str, Any], outputs: Tensors = NO_OUTPUTS, progress: Progress | None = None
    ) -> None:
        self.parent = parent
        self.about = {
            name: value if isinstance(value, str) else fingerprint(name, value=value) for name, value in about.items()
        }
        self.outputs = outputs
        self.progress = progress or Progress()

    @cached_property
    def folder(self) -> Path:
        """The folder of this search, created at the first access; a DefuseError if it cannot be written to."""
        key = fingerprint("search", about=self.about)[:16]
        return folder_for(self.parent, key, self.outputs, self.progress.say)

    def open(self) -> str:
        """Create the folder if it is missing.

        Returns:
            One sentence, or an empty string: whether the search resumes, or why the subject's last one does not.
        """
        file = self.folder / "about.json"
        if file.exists():
            count = len(list(self.folder.glob("*.safetensors"))) - 1  # one has the outputs
            return f"resuming this search after {count} finished pieces" if count else ""
        others = sorted(self.parent.glob("*/about.json"), key=_last_change)
        with writing(self.folder):
            replace_text(file, json.dumps(self.about, indent=2) + "\n")
        for other in reversed(others):
            with suppress(ValueError, AttributeError, OSError):  # damaged, or removed by another process
                earlier = json.loads(other.read_text(encoding="utf-8"))
                if earlier.get("subject") == self.about.get("subject"):
                    changed = [name for name in self.about if earlier.get(name) != self.about[name]]
                    return f"starting a new search because {' and '.join(changed)} changed" if changed else ""
        return ""

    def remove(self) -> None:
        """Remove the folder, after the results of the search are stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def once(self, name: str, compute: Callable[[], Piece]) -> Piece:
        """The piece ``name``, from disk or computed now."""
        return self.all({name: compute}, lambda piece: None)[0]

    def all(self, work: Mapping[str, Callable[[], Piece]], report: Callable[[Piece], None]) -> list[Piece]:
        """The pieces in the order of ``work``; ``report`` is called with each as soon as it is available.

        Raises:
            DefuseError: a piece cannot be written; finished pieces are kept.
        """
        pieces: dict[str, Piece] = {}
        while missing := [name for name in work if name not in pieces]:
            for name in missing:
                with suppress(Timeout):  # another process computes it
                    pieces[name] = self._piece(name, work[name])
                    report(pieces[name])
            if not any(name in pieces for name in missing):
                time.sleep(POLL_SECONDS)
        return [pieces[name] for name in work]

    def _piece(self, name: str, compute: Callable[[], Piece]) -> Piece:
        file = self.folder / f"{name}.safetensors"
        say = self.progress.say
        return get_or_make(file, lambda: read_tensors(file), lambda: write_tensors(compute(), file), say, wait=False)


def _last_change(file: Path) -> float:
    with suppress(OSError):  # another process may have removed it
        return file.stat().st_mtime
    return 0.0
