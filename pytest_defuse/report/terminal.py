"""Results as the terminal shows them."""

import io
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from pytest_defuse.report import tables, words
from pytest_defuse.report.correction import correction_notes
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import Table

STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "chosen": "bold"}
SHORT_NAME = 16
"""Characters of a first column that is not wrapped: an id such as ``3-as-5-a1b2c3`` has 13. Our choice."""


def render(results: Results, *, width: int, color: bool, start: Path, verbose: bool = False) -> str:
    """All results as text of at most ``width`` columns; paths are shown relative to ``start``.

    Args:
        verbose: also show every bound, each flip, and the commands that repeat the tests that did not pass.
    """
    buffer = io.StringIO()
    # pytest decides about colour, not the environment. Class names may contain [brackets] and :colons:, which are
    # not markup.
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for block in _blocks(results, start, verbose):
        console.print(block)
    return buffer.getvalue()


def _blocks(results: Results, start: Path, verbose: bool) -> Iterator[RenderableType]:
    for discovery in results.discoveries:
        yield from words.discovery_sentences(discovery)
        if discovery.new:
            yield from _drawn(tables.candidate_table(discovery))
            yield words.look_sentence(discovery, start)
            yield f"  {words.label_command('ID', 'NAME')}    or    {words.reject_command('ID')}"
        yield from words.known_sentences(discovery)
    for correction in results.corrections:
        yield words.correction_sentence(correction)
        yield from _drawn(*tables.correction_tables(correction))
        yield from correction_notes(correction)
    if results.scenarios:
        yield from _drawn(tables.scenario_table(results.scenarios))
    yield from words.accuracy_sentences(results)
    for verdict in results.verdicts:
        # The lines above contain everything about a single bound.
        if len(verdict.checks) > 1 and (verbose or any(check.group for check in verdict.checks)):
            yield from words.check_sentences(verdict)
    if changes := tables.comparison_table(results):
        yield from _drawn(changes)
    yield from words.comparison_sentences(results)
    if verbose:
        if flips := results.flips:
            yield from _drawn(tables.flip_table(flips))
        failing = [scenario for scenario in results.scenarios if scenario.outcome != "PASS"]
        yield from (f"repeat: {words.gate_command(scenario, results.arguments)}" for scenario in failing)
    yield from (Text(notice, STYLES["INCONCLUSIVE"]) for notice in results.remarks)
    for explanation in results.explanations:
        yield from words.explanation_sentences(explanation, start)
        if explanation.modes:
            yield from _drawn(tables.failure_mode_table(explanation.modes))
    for correction in results.corrections:
        style = STYLES["FAIL" if correction.problems else "PASS"]
        yield from (Text(sentence, style) for sentence in words.outcome_sentences(correction, start))


def _drawn(*drawn: Table) -> Iterator[RenderableType]:
    for table in drawn:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for index, column in enumerate(table.columns):
            # A wrapped name cannot be copied, but a long one would leave no room for the other columns.
            short_name = index == 0 and all(len(row.cells[0]) <= SHORT_NAME for row in table.rows)
            justify: JustifyMethod = "right" if column.numeric else "left"
            grid.add_column(column.title, justify=justify, no_wrap=column.numeric or short_name, overflow="fold")
        for row in table.rows:
            grid.add_row(*row.cells, style=STYLES[row.mark] if row.mark else None)
        yield from ("", grid)
