"""Progress that tests look at afterwards, or interrupt."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pytest_defuse.runtime.progress import Advance, Progress


class Report(NamedTuple):
    """Steps that a task reports at once, with its note."""

    title: str
    steps: int
    note: str


class Recorder(Progress):
    """Collects sentences, titles of tasks and reports of steps; ``at_step`` is called with the steps so far."""

    def __init__(self, at_step: Callable[[int], object] = lambda done: None) -> None:
        self.at_step = at_step
        self.sentences: list[str] = []
        self.titles: list[str] = []
        self.reports: list[Report] = []
        self.done = self.total = 0

    @property
    def notes(self) -> list[str]:
        return [report.note for report in self.reports]

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        self.titles.append(title)
        self.total = total

        def advance(steps: int, note: str = "") -> None:
            self.done += steps
            self.reports.append(Report(title, steps, note))
            self.at_step(self.done)

        yield advance


def interrupted_at(step: int) -> Recorder:
    """Ends the work as Ctrl-C does, after so many steps."""

    def interrupt(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return Recorder(interrupt)
