"""``pytest-defuse label``: accept scenarios under a label, or reject them."""

import argparse

from pytest_defuse.cli.output import Output
from pytest_defuse.cli.settings import store_root
from pytest_defuse.scenarios.decisions import all_scenarios, check_label, decide, find, full_name

HELP = "accept scenarios under a label, or reject them"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="id of a scenario, from pytest-defuse list")
    decision = parser.add_mutually_exclusive_group(required=True)
    decision.add_argument("--label", metavar="NAME", help="the class that the images show")
    decision.add_argument("--reject", action="store_true", help="reject: the images show no class, or several")


def run(arguments: argparse.Namespace) -> Output:
    """Decide on all of them; if one cannot take the label, on none."""
    present = all_scenarios(store_root(arguments))
    chosen = {scenario.folder: scenario for scenario in (find(present, name) for name in arguments.ids)}
    if arguments.label is not None:
        for scenario in chosen.values():
            check_label(scenario, arguments.label)
    outcome = "rejected" if arguments.label is None else f"accepted as {arguments.label}"
    decided = [decide(scenario, arguments.label) for scenario in chosen.values()]
    lines = [f"{scenario.id} {outcome}: {scenario.yaml}" for scenario in decided]
    values = [
        {
            "scenario": full_name(scenario),
            "status": scenario.record.status,
            "label": scenario.record.label,
            "file": str(scenario.yaml),
        }
        for scenario in decided
    ]
    return Output(lines, values)
