"""Progress on a terminal, in a log, or nowhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from pytest_defuse.runtime.escaping import encodable, visible
from pytest_defuse.runtime.progress import Advance, Progress

LOG_SECONDS = 10.0
"""Seconds between two lines in a log: our choice, between silence and noise."""


class VisibleProgress(Progress):
    """A live bar on a terminal; in a log, one line at the start, every ten seconds, and at the end.

    Args:
        uncaptured: suspends pytest's capturing of output, so that bars reach the terminal and capsys stays clean.
    """

    def __init__(self, uncaptured: Callable[[], AbstractContextManager[None]]) -> None:
        self.uncaptured = uncaptured

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """Show the progress of ``total`` steps."""
        with self.uncaptured():
            console = _console()
            show = _live if console.is_terminal else _logged
            with show(console, title, total) as advance:
                yield advance

    def say(self, sentence: str) -> None:
        """Print a sentence on a separate line."""
        with self.uncaptured():
            console = _console()
            console.print()
            _line(console, f"defuse: {sentence}")


def _console() -> Console:
    file = sys.__stdout__ if sys.stdout is None else sys.stdout
    # A log gets no bars where FORCE_COLOR or TTY_COMPATIBLE are set.
    return Console(file=file, force_terminal=None if file and file.isatty() else False, markup=False, emoji=False)


def _line(console: Console, text: str) -> None:
    console.print(_shown(console, text), highlight=False, soft_wrap=True)


def _shown(console: Console, text: str) -> str:
    return encodable(visible(text), console.encoding)


class _Rate(ProgressColumn):
    """Recent steps per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextmanager
def _live(console: Console, title: str, total: int) -> Iterator[Advance]:
    columns = (
        TextColumn("  {task.description:<30}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True, compact=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    console.print()
    with Bars(*columns, console=console) as bars:
        task = bars.add_task(_shown(console, title), total=total, note="")

        def advance(steps: int, note: str = "") -> None:
            bars.update(task, advance=steps, note=_shown(console, note))

        yield advance


@contextmanager
def _logged(console: Console, title: str, total: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    done, noted = 0, ""

    def advance(steps: int, note: str = "") -> None:
        nonlocal done, last, noted
        done, noted, now = done + steps, note, time.monotonic()
        if now - last >= LOG_SECONDS and done < total:
            last, rate = now, done / (now - start)
            left = f"{rate:,.0f}/s, {(total - done) / rate:.0f} s left"
            _line(console, f"defuse: {title}: {done:,}/{total:,}, {left}, {note}")

    console.print()
    _line(console, f"defuse: {title}")
    yield advance
    seconds = time.monotonic() - start
    _line(console, f"defuse: {title}: {done:,} done in {seconds:.1f} s, {noted}")
