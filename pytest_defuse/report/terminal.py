"""Results as the terminal shows them."""

import io
from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from pytest_defuse.report.correction import correction_notes
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import (
    Table,
    candidate_table,
    comparison_table,
    correction_tables,
    failure_mode_table,
    flip_table,
    scenario_table,
)
from pytest_defuse.report.words import (
    accuracy_sentences,
    check_sentences,
    comparison_sentences,
    correction_sentence,
    discovery_sentences,
    explanation_sentences,
    gate_command,
    known_sentences,
    label_command,
    look_sentence,
    outcome_sentences,
    reject_command,
)

STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "chosen": "bold"}
SHORT_NAME = 16
"""Characters of a first column that is not wrapped: an id such as ``3-as-5-a1b2c3`` has 13."""


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
    for discovery in results.discoveries:
        _sentences(console, discovery_sentences(discovery))
        if discovery.new:
            _table(console, candidate_table(discovery))
            console.print(look_sentence(discovery, start))
            console.print(f"  {label_command('ID', 'NAME')}    or    {reject_command('ID')}")
        _sentences(console, known_sentences(discovery))
    for correction in results.corrections:
        console.print(correction_sentence(correction))
        for table in correction_tables(correction):
            _table(console, table)
        _sentences(console, correction_notes(correction))
    if results.scenarios:
        _table(console, scenario_table(results.scenarios))
    _sentences(console, accuracy_sentences(results))
    for verdict in results.verdicts:
        # The lines above contain everything about a single bound.
        if len(verdict.checks) > 1 and (verbose or any(check.group for check in verdict.checks)):
            _sentences(console, check_sentences(verdict))
    if changes := comparison_table(results):
        _table(console, changes)
    _sentences(console, comparison_sentences(results))
    if verbose:
        if flips := results.flips:
            _table(console, flip_table(flips))
        failing = [scenario for scenario in results.scenarios if scenario.outcome != "PASS"]
        _sentences(console, (f"repeat: {gate_command(scenario, results.arguments)}" for scenario in failing))
    _sentences(console, results.notices, STYLES["INCONCLUSIVE"])
    for explanation in results.explanations:
        _sentences(console, explanation_sentences(explanation, start))
        if explanation.modes:
            _table(console, failure_mode_table(explanation.modes))
    for correction in results.corrections:
        style = STYLES["FAIL" if correction.problems else "PASS"]
        _sentences(console, outcome_sentences(correction, start), style)
    return buffer.getvalue()


def _sentences(console: Console, sentences: Iterable[str], style: str | None = None) -> None:
    for sentence in sentences:
        console.print(sentence, style=style)


def _table(console: Console, table: Table) -> None:
    console.print()
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(table.columns):
        # A wrapped name cannot be copied, but a long one would leave no room for the other columns.
        short_name = index == 0 and all(len(row.cells[0]) <= SHORT_NAME for row in table.rows)
        grid.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            no_wrap=column.numeric or short_name,
            overflow="fold",
        )
    for row in table.rows:
        grid.add_row(*row.cells, style=STYLES[row.mark] if row.mark else None)
    console.print(grid)
