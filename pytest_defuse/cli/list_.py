"""``pytest-defuse list``: all scenarios."""

import argparse
import io
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pytest_defuse.cli.output import Output
from pytest_defuse.cli.settings import store_root
from pytest_defuse.report.words import counted, percent
from pytest_defuse.scenarios.decisions import stores_below
from pytest_defuse.scenarios.store import Scenario

HELP = "show all scenarios"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""


def run(arguments: argparse.Namespace) -> Output:
    """Show all scenarios, by subject and id."""
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
    return Output(lines, [_values(scenario) for scenario in everything])


def _values(scenario: Scenario) -> dict[str, Any]:
    keys = {"status", "label", "labels", "proposed_label", "description", "notes", "failure_rate", "method"}
    evidence = scenario.machine.evidence
    return {
        "subject": scenario.subject,
        "id": scenario.id,
        "folder": str(scenario.folder),
        **scenario.record.model_dump(mode="json", include=keys),
        "predicted": scenario.counts("held_out"),
        "evidence": evidence.model_dump(mode="json") if evidence else None,
    }


def _drawn(table: Table) -> list[str]:
    # Output to a file or another program is not folded.
    width = Console().width if sys.stdout.isatty() else 1000
    console = Console(file=io.StringIO(), highlight=False, markup=False, emoji=False, width=width)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def _table(scenarios: Sequence[Scenario]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("scenario", "status", "label", "predicted"):
        table.add_column(column, overflow="fold", no_wrap=column in ("scenario", "status"))
    table.add_column("fails", justify="right", no_wrap=True)
    for scenario in scenarios:
        record = scenario.record
        counts, rate = scenario.counts("held_out"), record.failure_rate
        proposed = f"({record.proposed_label})" if record.proposed_label is not None else ""
        predicted, count = next(iter(counts.items()), ("", 0))
        table.add_row(
            scenario.id,
            record.status,
            record.labels or proposed if record.label is None else record.label,
            f"{predicted} {count}/{sum(counts.values())}" if counts else "",
            percent(rate.failed / rate.drawn) if rate else "",
        )
    return table
