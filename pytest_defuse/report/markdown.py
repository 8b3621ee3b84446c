"""Results as markdown, for a pull request or a CI service."""

import html
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from pytest_defuse.report import tables, words
from pytest_defuse.report.correction import correction_notes, tradeoff_mermaid
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import Table
from pytest_defuse.runtime.escaping import visible

BREAK = "&#8203;"
"""A space of no width: after it, ``@name`` is no mention, ``#1`` no reference and ``https:`` no link."""
SPECIAL = re.compile(r"(?P<markup>[\\`*_\[\]|~<>&$])|[@#]|[!:](?=\w)|:(?=//)|(?<=www)(?=\.)|(?i:(?<=\bgh))(?=-\d)")
"""What means something in GitHub's or GitLab's markdown: characters to escape, and places for a :data:`BREAK`."""
FLIP_ROWS = 100
"""Rows of the table of flips. A comment on a pull request can have 65,536 characters."""


def render_markdown(results: Results, start: Path = Path()) -> str:
    """All results as GitHub's markdown; paths are shown relative to ``start``."""
    return "\n\n".join(block for block in _blocks(results, start) if block) + "\n"


def escape(text: str) -> str:
    """Text that markdown shows unchanged, on one line, also in a table's cell; it mentions and links nothing."""
    return SPECIAL.sub(_escaped, visible(" ".join(text.split())))


def _escaped(match: re.Match[str]) -> str:
    if match["markup"] is None:
        return match[0] + BREAK
    return html.escape(match[0], quote=False) if match[0] in "<>&" else f"\\{match[0]}"


def _blocks(results: Results, start: Path) -> Iterable[str]:
    yield f"## {escape(words.headline(results))}"
    if results.scenarios:
        yield _table(tables.scenario_table(results.scenarios))
    yield _items([*words.accuracy_sentences(results), *results.remarks])
    if several := [verdict for verdict in results.verdicts if len(verdict.checks) > 1]:
        yield from _folded("All bounds", _table(tables.check_table(*several)))
    changes = tables.comparison_table(results)
    if changes or words.comparison_sentences(results):
        yield "### Compared with the baseline"
        yield _table(changes) if changes else ""
        yield _items(words.comparison_sentences(results))
    if flips := results.flips:
        rows = tables.flip_table(flips[:FLIP_ROWS])
        yield from _folded(f"{words.counted(len(flips), 'flip')}, correct in the baseline and wrong now", _table(rows))
    if failing := [scenario for scenario in results.scenarios if scenario.outcome != "PASS"]:
        commands = [words.gate_command(scenario, results.arguments) for scenario in failing]
        yield from _folded("Repeat the tests that did not pass", _code(commands))
    for correction in results.corrections:
        yield "### Correction"
        yield _items(words.outcome_sentences(correction, start))
        yield from map(_table, tables.correction_tables(correction))
        yield tradeoff_mermaid(correction)
        yield _items([words.correction_sentence(correction), *correction_notes(correction)])
    for discovery in results.discoveries:
        yield "### Discovery"
        yield _items([*words.discovery_sentences(discovery), *words.known_sentences(discovery)])
        for candidate in discovery.new:
            yield from change_blocks(discovery.subject, candidate.id, "added", candidate.facts)
        if discovery.new:
            yield _sentence(words.look_sentence(discovery, start))
            commands = [words.label_command(candidate.id, candidate.proposed_label) for candidate in discovery.new]
            yield _code([*commands, words.reject_command("ID")])
    for explanation in results.explanations:
        yield "### Failure modes"
        yield _items(words.explanation_sentences(explanation, start))
        if explanation.modes:
            yield _table(tables.failure_mode_table(explanation.modes))


def change_blocks(subject: str, scenario: str, kinds: str, details: Iterable[str]) -> Iterable[str]:
    """A changed scenario, as the summary of a run and a comment on a pull request show it."""
    yield f"### {escape(f'{subject}/{scenario}')}: {kinds}"
    yield "\n".join(f"- {escape(detail)}" for detail in details)


def _folded(title: str, block: str) -> Iterable[str]:
    return f"<details><summary>{escape(title)}</summary>", block, "</details>"


def _table(table: Table) -> str:
    lines = [
        [column.title for column in table.columns],
        ["---:" if column.numeric else ":---" for column in table.columns],
        *([escape(cell) for cell in row.cells] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _items(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_sentence(sentence)}" for sentence in sentences)


def _sentence(text: str) -> str:
    return escape(text[:1].upper() + text[1:])


def _code(lines: Iterable[str]) -> str:
    # Indented, not fenced: a class name could close a fence.
    return textwrap.indent("\n".join(map(visible, lines)), "    ")
