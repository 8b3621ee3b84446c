"""Results as the terminal shows them."""

import io
from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from pytest_defuse.report.correction import correction_notes, correction_tables
from pytest_defuse.report.flips import flips
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import (
    Table,
    candidate_table,
    comparison_table,
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

STYLES = {"holds": "green", "fails": "red", "unsure": "yellow", "chosen": "bold"}
SHORT_NAME = 16


def render(results: Results, *, width: int, color: bool, start: Path, verbose: bool = False) -> str:
    """All results as text of at most ``width`` columns; paths are shown relative to ``start``.

    Args:
        verbose: also every bound one by one, each flip, and how to measure what does not hold again.
    """
    buffer = io.StringIO()
    # Whether to colour is pytest's to say, not the environment's. Class names are the user's: [brackets]
    # and :colons: in them are no markup.
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
    # Where there is but one bound, the lines above say all of it.
    asked = [judged for judged in results.judged if verbose or any(check.group for check in judged.checks)]
    for judged in asked:
        if len(judged.checks) > 1:
            _sentences(console, check_sentences(judged))
    if changes := comparison_table(results):
        _table(console, changes)
    _sentences(console, comparison_sentences(results))
    if verbose and (changed := flips(results)):
        _table(console, flip_table(changed))
    if verbose:
        misses = [scenario for scenario in results.scenarios if scenario.outcome != "holds"]
        _sentences(console, (f"again: {gate_command(scenario, results.arguments)}" for scenario in misses))
    _sentences(console, results.notices, STYLES["unsure"])
    for explanation in results.explanations:
        _sentences(console, explanation_sentences(explanation, start))
        if explanation.modes:
            _table(console, failure_mode_table(explanation.modes))
    for correction in results.corrections:
        style = STYLES["fails" if correction.problems else "holds"]
        _sentences(console, outcome_sentences(correction, start), style)
    return buffer.getvalue()


def _sentences(console: Console, sentences: Iterable[str], style: str | None = None) -> None:
    for sentence in sentences:
        console.print(sentence, style=style)


def _table(console: Console, table: Table) -> None:
    console.print()
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(table.columns):
        # A broken name cannot be copied, but a long one would leave the other columns no room.
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
