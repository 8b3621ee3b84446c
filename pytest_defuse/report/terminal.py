"""Results as the terminal shows them."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pytest_defuse.report import tables, words
from pytest_defuse.report.correction import correction_notes
from pytest_defuse.report.layout import STYLES, drawn, wrapped
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import Table
from pytest_defuse.runtime.escaping import encodable, visible


def render(
    results: Results, *, width: int, color: bool, start: Path, verbose: bool = False, encoding: str | None = "utf-8"
) -> str:
    """All results as text of at most ``width`` columns; paths are shown relative to ``start``.

    Only a word that is longer, such as a path, exceeds the width: nothing is cut, or folded inside a word.

    Args:
        verbose: also show every bound, each flip, and the commands that repeat the tests that did not pass.
        encoding: of the terminal; other characters are shown as escapes.
    """
    return _rendered(_blocks(results, start, verbose), width, color, encoding)


def render_table(table: Table, *, width: int, encoding: str | None = "utf-8") -> str:
    """A table as text without colour; see :func:`render`."""
    return _rendered([table], width, False, encoding)


def _rendered(blocks: Iterable[str | Text | Table], width: int, color: bool, encoding: str | None) -> str:
    with io.TextIOWrapper(io.BytesIO(), encoding or "ascii", errors="backslashreplace", newline="") as buffer:
        # pytest decides about colour, not the environment. Class names may contain [brackets] and :colons:, which are
        # not markup. The console draws lines in ASCII if the buffer's encoding needs that.
        console = Console(
            file=buffer,
            width=width,
            force_terminal=color,
            color_system="standard" if color else None,
            no_color=not color,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )
        for block in blocks:
            parts = drawn(block, width, encoding) if isinstance(block, Table) else [_sentence(block, width, encoding)]
            for part in parts:
                console.print(part, overflow="ignore", crop=False)
        buffer.flush()
        buffer.seek(0)
        return buffer.read()


def _sentence(text: str | Text, width: int, encoding: str | None) -> Text:
    plain, style = (text.plain, text.style) if isinstance(text, Text) else (text, "")
    return Text("\n".join(wrapped(encodable(visible(plain), encoding), width)), style)


def _blocks(results: Results, start: Path, verbose: bool) -> Iterator[str | Text | Table]:
    for discovery in results.discoveries:
        yield from words.discovery_sentences(discovery)
        if discovery.new:
            yield from ("", tables.candidate_table(discovery))
            yield words.look_sentence(discovery, start)
            yield f"  {words.label_command('ID', 'NAME')}    or    {words.reject_command('ID')}"
        yield from words.known_sentences(discovery)
    for correction in results.corrections:
        yield words.correction_sentence(correction)
        for table in tables.correction_tables(correction):
            yield from ("", table)
        yield from correction_notes(correction)
    if results.scenarios:
        yield from ("", tables.scenario_table(results.scenarios))
    yield from words.accuracy_sentences(results)
    for verdict in results.verdicts:
        # The lines above contain everything about a single bound.
        if len(verdict.checks) > 1 and (verbose or any(check.group for check in verdict.checks)):
            yield from words.check_sentences(verdict)
    if changes := tables.comparison_table(results):
        yield from ("", changes)
    yield from words.comparison_sentences(results)
    if verbose:
        if flips := results.flips:
            yield from ("", tables.flip_table(flips))
        failing = [scenario for scenario in results.scenarios if scenario.outcome != "PASS"]
        yield from (f"repeat: {words.gate_command(scenario, results.arguments)}" for scenario in failing)
    for remark in results.remarks:
        yield Text(remark, STYLES["FAIL" if remark in results.problems else "INCONCLUSIVE"])
    for explanation in results.explanations:
        yield from words.explanation_sentences(explanation, start)
        if explanation.modes:
            yield from ("", tables.failure_mode_table(explanation.modes))
    for correction in results.corrections:
        style = STYLES["FAIL" if correction.problems else "PASS"]
        yield from (Text(sentence, style) for sentence in words.outcome_sentences(correction, start))
