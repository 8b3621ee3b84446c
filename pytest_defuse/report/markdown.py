"""Results as markdown, as a pull request or a CI service shows it."""

import html
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from pytest_defuse.report.correction import correction_notes, correction_tables, tradeoff_mermaid
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import (
    Table,
    candidate_table,
    failure_mode_table,
    scenario_table,
)
from pytest_defuse.report.words import (
    accuracy_sentences,
    correction_sentence,
    discovery_sentences,
    headline,
    known_sentences,
    label_command,
    look_sentence,
    outcome_sentences,
    reject_command,
)


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
    yield _items(accuracy_sentences(results))
    for correction in results.corrections:
        yield "### Correction"
        yield _items(outcome_sentences(correction, start))
        yield from map(_table, correction_tables(correction))
        yield tradeoff_mermaid(correction)
        yield _items([correction_sentence(correction), *correction_notes(correction)])
    for discovery in results.discoveries:
        yield "### Discovery"
        yield _items([*discovery_sentences(discovery), *known_sentences(discovery)])
        if discovery.new:
            yield _table(candidate_table(discovery))
            yield _sentence(look_sentence(discovery, start))
            commands = [label_command(candidate.id, candidate.proposed_label) for candidate in discovery.new]
            yield _code([*commands, reject_command("ID")])
    if results.failure_modes:
        yield "### Failure modes"
        yield _table(failure_mode_table(results.failure_modes))


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
