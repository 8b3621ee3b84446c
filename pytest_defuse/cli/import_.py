"""``pytest-defuse import``: votes from an annotation service."""

import argparse
from pathlib import Path

from pytest_defuse.cli.output import Output
from pytest_defuse.cli.settings import store_root
from pytest_defuse.report.words import counted
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.decisions import all_scenarios
from pytest_defuse.scenarios.exchange import ground_truth, label_studio
from pytest_defuse.scenarios.exchange.ballots import import_ballots

HELP = "add votes from Label Studio or SageMaker Ground Truth"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("service", choices=["label-studio", "ground-truth"])
    parser.add_argument("file", metavar="FILE", type=Path, help="JSON export, or output manifest")


def run(arguments: argparse.Namespace) -> Output:
    """Import all votes or none; ``pytest-defuse votes --decide`` decides by them."""
    try:
        text = arguments.file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DefuseError(f"{arguments.file} cannot be read ({error}).") from error
    read = label_studio.read_export if arguments.service == "label-studio" else ground_truth.read_manifest
    try:
        responses = read(text)
    except DefuseError as error:
        raise DefuseError(f"{arguments.file}: {error}") from error
    imported = import_ballots(all_scenarios(store_root(arguments)), str(arguments.file), responses)
    lines = [f"{counted(count, 'vote')} of {annotator}" for annotator, count in imported.votes.items()]
    lines.append(
        f"on {counted(len(imported.scenarios), 'scenario')}; {counted(responses.skipped, 'item')} without an answer"
    )
    return Output(lines, {"votes": imported.votes, "scenarios": list(imported.scenarios), "skipped": responses.skipped})
