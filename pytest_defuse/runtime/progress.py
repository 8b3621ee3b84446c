"""How long work tells that it is alive. The engine reports here; who shows it is another room's business."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Counts a task's steps."""

    def __call__(self, steps: int, note: str = "") -> None:
        """So many more steps are done; the note says what was found so far."""


class Progress:
    """Progress that nobody watches; the terminal's is a subclass."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """Announce ``total`` steps of work and yield the function that counts them."""

        def unseen(steps: int, note: str = "") -> None: ...

        yield unseen

    def say(self, sentence: str) -> None:
        """Tell something that a person should know."""
