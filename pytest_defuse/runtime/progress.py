"""Progress of long work: the engine reports it here, and the pytest layer and the command line show it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Counts a task's steps."""

    def __call__(self, steps: int, note: str = "") -> None:
        """Add finished steps; the note says what was found so far."""


class Progress:
    """Progress that is not shown; subclasses show it."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """Start a task of ``total`` steps; yields the function that counts them."""

        def advance(steps: int, note: str = "") -> None: ...

        yield advance

    def say(self, sentence: str) -> None:
        """Print a sentence for the user."""
