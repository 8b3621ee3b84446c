"""``pytest-defuse votes``: votes on tiles, agreement, and the decisions that they give."""

import argparse
import math
from typing import Any

from pytest_defuse.cli.output import Output, wrapped
from pytest_defuse.cli.settings import store_root
from pytest_defuse.report.words import counted
from pytest_defuse.scenarios.decisions import all_scenarios, decide_by_votes, find, full_name, tally_of
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.scenarios.votes import Agreement, Tally, agreement_table

HELP = "show the votes on single tiles, and the agreement of annotators"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="scenarios (default: all)")
    parser.add_argument(
        "--decide", action="store_true", help="accept and reject candidates by their votes, and exclude tiles"
    )


def run(arguments: argparse.Namespace) -> Output:
    """Show the decision that the votes on each scenario give, and the agreement over all scenarios.

    With --decide the exit code is 1 if the votes leave a candidate undecided.
    """
    present = all_scenarios(store_root(arguments))
    chosen = [find(present, name) for name in arguments.only] or present
    tallies = [(scenario, tally_of(scenario)) for scenario in chosen]
    open_cases = [tally for scenario, tally in tallies if scenario.record.status == "candidate" and tally.tiles]
    if arguments.decide:
        tallies = [
            (decide_by_votes(scenario, tally) if tally in open_cases else scenario, tally)
            for scenario, tally in tallies
        ]
    undecided = any(tally.outcome == "undecided" for tally in open_cases)
    voted = [(scenario, tally) for scenario, tally in tallies if tally.tiles or tally.models]
    lines = [line for scenario, tally in voted for line in _lines(scenario, tally)]
    if unvoted := len(chosen) - len(voted):
        lines.append(f"{counted(unvoted, 'scenario')} without votes")
    table = agreement_table(tally for _, tally in tallies)
    if table[-1].images:
        lines += ["", "agreement       images  mean +- standard error", *(_row(row) for row in table if row.images)]
    return Output(
        lines,
        {
            "scenarios": [_values(scenario, tally) for scenario, tally in tallies],
            "agreement": [
                {"group": row.group, "images": row.images, "mean": _number(row.mean), "error": _number(row.error)}
                for row in table
            ],
        },
        1 if arguments.decide and undecided else 0,
    )


def _lines(scenario: Scenario, tally: Tally) -> list[str]:
    label = f" {tally.label}" if tally.label is not None else ""
    heading = f"{scenario.id} ({scenario.record.status}): {tally.outcome}{label}, {tally.reason}"
    voters = f"{counted(len(tally.tiles), 'tile')} by {', '.join(tally.voters)}; agreement {tally.agreement:.0%}"
    return wrapped(heading, *([voters] if tally.tiles else []), *tally.remarks)


def _row(row: Agreement) -> str:
    error = "" if math.isnan(row.error) else f" +- {100 * row.error:.1f}"
    return f"{row.group:14s} {row.images:7d}  {100 * row.mean:.1f}%{error}"


def _values(scenario: Scenario, tally: Tally) -> dict[str, Any]:
    return {
        "scenario": full_name(scenario),
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


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
