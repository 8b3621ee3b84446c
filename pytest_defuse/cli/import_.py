"""``pytest-defuse import``: votes from an annotation service."""

import argparse
from pathlib import Path

from pytest_defuse.cli.answer import Answer
from pytest_defuse.cli.settings import store_root
from pytest_defuse.report.words import counted
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.decisions import all_scenarios
from pytest_defuse.scenarios.exchange import ground_truth, label_studio
from pytest_defuse.scenarios.exchange.ballots import import_ballots

HELP = "add the votes that Label Studio or SageMaker Ground Truth gathered"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("service", choices=["label-studio", "ground-truth"])
    parser.add_argument("file", metavar="FILE", type=Path, help="a JSON export, or an output manifest")


def run(arguments: argparse.Namespace) -> Answer:
    """Import all of it or nothing; decisions are for pytest-defuse label --by-votes."""
    try:
        text = arguments.file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DefuseError(f"{arguments.file} cannot be read ({error}).") from error
    read = label_studio.read_export if arguments.service == "label-studio" else ground_truth.read_manifest
    try:
        answers = read(text)
    except DefuseError as error:
        raise DefuseError(f"{arguments.file}: {error}") from error
    imported = import_ballots(all_scenarios(store_root(arguments)), str(arguments.file), answers)
    lines = [f"{counted(count, 'vote')} of {annotator}" for annotator, count in imported.votes.items()]
    lines.append(
        f"on {counted(len(imported.scenarios), 'scenario')}; {counted(answers.skipped, 'item')} without an answer"
    )
    return Answer(lines, {"votes": imported.votes, "scenarios": list(imported.scenarios), "skipped": answers.skipped})
