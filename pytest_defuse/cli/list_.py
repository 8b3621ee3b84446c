"""``pytest-defuse list``: all scenarios."""

import argparse
import io
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pytest_defuse.cli.answer import Answer
from pytest_defuse.cli.settings import store_root
from pytest_defuse.report.words import counted, percent
from pytest_defuse.scenarios.decisions import stores_below
from pytest_defuse.scenarios.store import Scenario

HELP = "show all scenarios"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""


def run(arguments: argparse.Namespace) -> Answer:
    """Show them by subject and id."""
    root = store_root(arguments)
    stores = {store.folder.name: store.scenarios() for store in stores_below(root)}
    lines = []
    for subject, scenarios in stores.items():
        if len(stores) > 1:
            lines.append(f"{subject}:")
        lines += [*_drawn(_table(scenarios)), ""]
    everything = [scenario for scenarios in stores.values() for scenario in scenarios]
    statuses = Counter(scenario.record.status for scenario in everything)
    lines.append(
        f"{counted(statuses['candidate'], 'candidate')}, {statuses['accepted']} accepted, "
        f"{statuses['rejected']} rejected in {root}"
    )
    return Answer(lines, [_values(scenario) for scenario in everything])


def _values(scenario: Scenario) -> dict[str, Any]:
    record = scenario.record
    chosen = {"status", "label", "proposed_label", "notes", "failure_rate", "evidence"}
    return {
        "subject": scenario.subject,
        "id": scenario.id,
        "folder": str(scenario.folder),
        **record.model_dump(mode="json", include=chosen),
        "predicted": record.sheets.held_out.counts,
    }


def _drawn(table: Table) -> list[str]:
    # What a file or another program reads is not folded.
    width = Console().width if sys.stdout.isatty() else 1000
    console = Console(file=io.StringIO(), highlight=False, markup=False, emoji=False, width=width)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def _table(scenarios: Sequence[Scenario]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("scenario", "status", "label", "model says"):
        table.add_column(column, overflow="fold", no_wrap=column in ("scenario", "status"))
    table.add_column("fails", justify="right", no_wrap=True)
    for scenario in scenarios:
        record = scenario.record
        counts, rate = record.sheets.held_out.counts, record.failure_rate
        says, most = next(iter(counts.items()))
        table.add_row(
            scenario.id,
            record.status,
            f"({record.proposed_label})" if record.label is None else record.label,
            f"{says} {most}/{sum(counts.values())}",
            percent(rate.failed / rate.drawn),
        )
    return table
