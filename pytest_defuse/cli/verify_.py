"""``pytest-defuse verify``: check every file of the store."""

import argparse

from pytest_defuse.cli.output import Output
from pytest_defuse.cli.settings import store_root
from pytest_defuse.report.words import counted
from pytest_defuse.scenarios.decisions import stores_below
from pytest_defuse.scenarios.verify import verify

HELP = "check every file of the store"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""


def run(arguments: argparse.Namespace) -> Output:
    """Print a line a problem; with warnings alone the exit code is 0."""
    root = store_root(arguments)
    stores = stores_below(root)
    problems = verify(stores)
    wrong = [problem for problem in problems if not problem.warning]
    count = sum(len(store.folders()) for store in stores)
    lines = [str(problem) for problem in problems]
    if not wrong:
        warned = f", {counted(len(problems), 'warning')}" if problems else ""
        lines.append(f"{counted(count, 'scenario')} in {root}: every file is valid{warned}")
    values = {
        "scenarios": count,
        "problems": [{"file": p.file, "line": p.line, "message": p.words, "warning": p.warning} for p in problems],
    }
    return Output(lines, values, 1 if wrong else 0)
