"""The subcommands with which people look at scenarios and decide on them: review, label, list and votes."""

import math
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pytest_defuse.cli.common import Output, store_root, terminal_width, wrapped
from pytest_defuse.report.tables import Column, Row, Table
from pytest_defuse.report.terminal import render_table
from pytest_defuse.report.words import counted, percent
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.decisions import (
    Agreement,
    Tally,
    agreement_table,
    check_label,
    decide,
    decide_by_votes,
    tally_of,
)
from pytest_defuse.scenarios.lookup import all_scenarios, find, stores_below
from pytest_defuse.scenarios.scenario import Scenario


def review(arguments: Namespace) -> Output:
    """Serve the page until Ctrl-C."""
    try:
        from pytest_defuse.review.app import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise DefuseError("The page needs two more packages: pip install 'pytest-defuse[review]'.") from error

    root, browser = store_root(arguments), not arguments.no_browser
    serve(root, port=arguments.port, browser=browser, annotator=arguments.annotator)
    return Output([], None)


def label(arguments: Namespace) -> Output:
    """Decide on all scenarios that are named; if one cannot take the label, on none."""
    present = all_scenarios(store_root(arguments))
    chosen = {scenario.folder: scenario for scenario in (find(present, name) for name in arguments.ids)}.values()
    if arguments.label is not None:
        for scenario in chosen:
            check_label(scenario, arguments.label)
    outcome = "rejected" if arguments.label is None else f"accepted as {arguments.label}"
    decided = [decide(scenario, arguments.label) for scenario in chosen]
    values = [
        {"scenario": s.full_name, "status": s.record.status, "label": s.record.label, "file": str(s.yaml)}
        for s in decided
    ]
    return Output([f"{scenario.id} {outcome}: {scenario.yaml}" for scenario in decided], values)


def show(arguments: Namespace) -> Output:
    """List all scenarios, by subject and id."""
    root = store_root(arguments)
    stores = {store.folder.name: store.scenarios() for store in stores_below(root)}
    lines = []
    for subject, scenarios in stores.items():
        heading = [f"{subject}:"] if len(stores) > 1 else []
        lines += [*heading, *_drawn(_table(scenarios)), ""]
    everything = [scenario for scenarios in stores.values() for scenario in scenarios]
    statuses = Counter(scenario.record.status for scenario in everything)
    lines.append(
        f"{counted(statuses['candidate'], 'candidate')}, {statuses['accepted']} accepted, "
        f"{statuses['rejected']} rejected in {root}"
    )
    return Output(lines, [_scenario_values(scenario) for scenario in everything])


def votes(arguments: Namespace) -> Output:
    """Show the decision that the votes on each scenario give, and the agreement over all scenarios.

    With --decide the exit code is 1 if the votes leave a candidate undecided.
    """
    present = all_scenarios(store_root(arguments))
    chosen = [find(present, name) for name in arguments.only] or present
    tallies = [(scenario, tally_of(scenario)) for scenario in chosen]
    code = 0
    if arguments.decide:
        for index, (scenario, tally) in enumerate(tallies):
            if scenario.record.status == "candidate" and tally.tiles:
                tallies[index] = decide_by_votes(scenario, tally), tally
                code = 1 if tally.outcome == "undecided" else code
    voted = [(scenario, tally) for scenario, tally in tallies if tally.tiles or tally.models]
    lines = [line for scenario, tally in voted for line in _tally_lines(scenario, tally)]
    if unvoted := len(chosen) - len(voted):
        lines.append(f"{counted(unvoted, 'scenario')} without votes")
    table = agreement_table(tally for _, tally in tallies)
    if table[-1].images:
        lines += ["", "agreement       images  mean +- standard error", *(_row(row) for row in table if row.images)]
    agreement = [
        {"group": row.group, "images": row.images, "mean": _number(row.mean), "error": _number(row.error)}
        for row in table
    ]
    scenarios = [_tally_values(scenario, tally) for scenario, tally in tallies]
    return Output(lines, {"scenarios": scenarios, "agreement": agreement}, code)


def _table(scenarios: Sequence[Scenario]) -> Table:
    columns = [*(Column(title, False) for title in ("scenario", "status", "label", "predicted")), Column("fails", True)]
    rows = []
    for scenario in scenarios:
        record = scenario.record
        counts, rate = scenario.counts("held_out"), record.failure_rate
        proposed = f"({record.proposed_label})" if record.proposed_label is not None else ""
        predicted, count = next(iter(counts.items()), ("", 0))
        cells = (
            scenario.id,
            record.status,
            record.labels or proposed if record.label is None else record.label,
            f"{predicted} {count}/{sum(counts.values())}" if counts else "",
            percent(rate.failed / rate.drawn) if rate else "",
        )
        rows.append(Row(cells))
    return Table(tuple(columns), tuple(rows))


def _drawn(table: Table) -> list[str]:
    # Output to a file or another program is not wrapped.
    text = render_table(table, width=terminal_width(1000), encoding=sys.stdout.encoding)
    return [line.rstrip() for line in text.splitlines()]


def _scenario_values(scenario: Scenario) -> dict[str, Any]:
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


def _tally_lines(scenario: Scenario, tally: Tally) -> list[str]:
    label = f" {tally.label}" if tally.label is not None else ""
    heading = f"{scenario.id} ({scenario.record.status}): {tally.outcome}{label}, {tally.reason}"
    voters = f"{counted(len(tally.tiles), 'tile')} by {', '.join(tally.voters)}; agreement {tally.agreement:.0%}"
    return wrapped(heading, *([voters] if tally.tiles else []), *tally.remarks)


def _tally_values(scenario: Scenario, tally: Tally) -> dict[str, Any]:
    return {
        "scenario": scenario.full_name,
        "status": scenario.record.status,
        "voters": list(tally.voters),
        "models": list(tally.models),
        "tiles": len(tally.tiles),
        "ties": len(tally.ties),
        "agreement": _number(tally.agreement),
        "outcome": tally.outcome,
        "label": tally.label,
        "reason": tally.reason,
        "remarks": tally.remarks,
    }


def _row(row: Agreement) -> str:
    error = "" if math.isnan(row.error) else f" +- {100 * row.error:.1f}"
    return f"{row.group:14s} {row.images:7d}  {100 * row.mean:.1f}%{error}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
