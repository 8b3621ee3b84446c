"""Results as markdown, as a pull request or a CI service shows it."""

import html
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from pytest_defuse.report.correction import correction_notes, correction_tables, tradeoff_mermaid
from pytest_defuse.report.flips import flips
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import (
    Table,
    check_table,
    comparison_table,
    failure_mode_table,
    flip_table,
    scenario_table,
)
from pytest_defuse.report.words import (
    accuracy_sentences,
    comparison_sentences,
    correction_sentence,
    counted,
    discovery_sentences,
    explanation_sentences,
    gate_command,
    headline,
    known_sentences,
    label_command,
    look_sentence,
    outcome_sentences,
    reject_command,
)

MOST_FLIPS = 100
"""A comment on a pull request holds 65,536 characters."""


def render_markdown(results: Results, start: Path = Path()) -> str:
    """All results as GitHub's markdown; paths are shown relative to ``start``."""
    return "\n\n".join(block for block in _blocks(results, start) if block) + "\n"


def escape(text: str) -> str:
    """Text that markdown shows as it is, on one line, also in a table's cell."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _blocks(results: Results, start: Path) -> Iterable[str]:
    yield f"## {escape(headline(results))}"
    if results.scenarios:
        yield _table(scenario_table(results.scenarios))
    yield _items([*accuracy_sentences(results), *results.notices])
    if bounded := [judged for judged in results.judged if len(judged.checks) > 1]:
        yield from _folded("Every bound, one by one", _table(check_table(*bounded)))
    changes = comparison_table(results)
    if changes or comparison_sentences(results):
        yield "### Against the baseline"
        yield _table(changes) if changes else ""
        yield _items(comparison_sentences(results))
    if changed := flips(results):
        rows = flip_table(changed[:MOST_FLIPS])
        yield from _folded(f"{counted(len(changed), 'flip')}, right in the baseline and wrong now", _table(rows))
    if misses := [scenario for scenario in results.scenarios if scenario.outcome != "holds"]:
        commands = [gate_command(scenario, results.arguments) for scenario in misses]
        yield from _folded("Measure again what does not hold", _code(commands))
    for correction in results.corrections:
        yield "### Correction"
        yield _items(outcome_sentences(correction, start))
        yield from map(_table, correction_tables(correction))
        yield tradeoff_mermaid(correction)
        yield _items([correction_sentence(correction), *correction_notes(correction)])
    for discovery in results.discoveries:
        yield "### Discovery"
        yield _items([*discovery_sentences(discovery), *known_sentences(discovery)])
        for candidate in discovery.new:
            yield from change_blocks(discovery.subject, candidate.id, "added", candidate.facts)
        if discovery.new:
            yield _sentence(look_sentence(discovery, start))
            commands = [label_command(candidate.id, candidate.proposed_label) for candidate in discovery.new]
            yield _code([*commands, reject_command("ID")])
    for explanation in results.explanations:
        yield "### Failure modes"
        yield _items(explanation_sentences(explanation, start))
        if explanation.modes:
            yield _table(failure_mode_table(explanation.modes))


def change_blocks(subject: str, scenario: str, kinds: str, details: Iterable[str]) -> Iterable[str]:
    """A scenario that changed in a store, as the summary of a run and a comment on a pull request show it."""
    yield f"### {escape(f'{subject}/{scenario}')}: {kinds}"
    yield "\n".join(f"- {escape(detail)}" for detail in details)


def _folded(title: str, block: str) -> Iterable[str]:
    yield f"<details><summary>{html.escape(title)}</summary>"
    yield block
    yield "</details>"


def _table(table: Table) -> str:
    lines = [
        [column.title for column in table.columns],
        ["---:" if column.numeric else ":---" for column in table.columns],
        *([escape(cell) for cell in row.cells] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _items(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_sentence(sentence)}" for sentence in sentences)


def _sentence(words: str) -> str:
    return escape(words[:1].upper() + words[1:])


def _code(lines: Iterable[str]) -> str:
    # Indented, not fenced: no class name can close the block.
    return textwrap.indent("\n".join(lines), "    ")
