"""Work that is done once: pieces of a search, kept on disk as soon as each is finished."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from filelock import Timeout
from torch import Tensor

from pytest_defuse.runtime.cache import get_or_make, read_tensors, write_tensors, writing
from pytest_defuse.runtime.files import replace_text
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress

Piece = dict[str, Tensor]


class Journal:
    """A folder of finished pieces of one search, each a safetensors file that is whole or not there.

    Killed at any moment and started again, a search computes only the pieces that are missing.
    Processes that run the same search at the same time share the work: a piece is computed under a
    lock, and who finds it locked takes another.

    Args:
        parent: the folder of all searches.
        about: what the search depends on, by name (model, data, settings, ...); any difference is another search.
    """

    def __init__(self, parent: Path, about: Mapping[str, str], progress: Progress | None = None) -> None:
        self.parent = parent
        self.about = dict(about)
        self.progress = progress or Progress()
        self.folder = parent / fingerprint("search", about=self.about)[:16]

    def opened(self) -> str:
        """Make the folder; the sentence, possibly empty, says whether the search goes on or why it is a new one."""
        if (self.folder / "about.json").exists():
            pieces = len(list(self.folder.glob("*.safetensors")))
            return f"this search was begun before: it goes on after {pieces} finished pieces" if pieces else ""
        others = sorted(self.parent.glob("*/about.json"), key=lambda file: file.stat().st_mtime)
        with writing(self.folder):
            replace_text(self.folder / "about.json", json.dumps(self.about, indent=2) + "\n")
        for other in reversed(others):
            with suppress(ValueError, AttributeError):
                earlier = json.loads(other.read_text(encoding="utf-8"))
                if earlier.get("subject") == self.about.get("subject"):
                    changed = [name for name in self.about if earlier.get(name) != self.about[name]]
                    return f"the search starts afresh, since the last one had another {', another '.join(changed)}"
        return ""

    def once(self, name: str, compute: Callable[[], Piece]) -> Piece:
        """The piece ``name``, computed now unless it was finished before."""
        return self.all({name: compute}, lambda piece: None)[0]

    def all(self, work: Mapping[str, Callable[[], Piece]], finished: Callable[[Piece], None]) -> list[Piece]:
        """The pieces in the order of ``work``; ``finished`` hears of each as soon as it is there.

        Raises:
            DefuseError: a piece cannot be written; those that are there stay.
        """
        pieces: dict[str, Piece] = {}
        while waiting := [name for name in work if name not in pieces]:
            before = len(pieces)
            for name in waiting:
                piece = self._piece(name, work[name])
                if piece is not None:
                    pieces[name] = piece
                    finished(piece)
            if len(pieces) == before:
                time.sleep(0.1)  # other processes are at work on all that is left
        return [pieces[name] for name in work]

    def _piece(self, name: str, compute: Callable[[], Piece]) -> Piece | None:
        """The piece; None when another process is at work on it."""
        file = self.folder / f"{name}.safetensors"
        try:
            return get_or_make(
                file,
                lambda: read_tensors(file),
                lambda: write_tensors(compute(), file),
                self.progress.say,
                wait=False,
            )
        except Timeout:
            return None
