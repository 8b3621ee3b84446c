"""``pytest-defuse migrate``: rewrite files of older formats."""

import argparse

from pytest_defuse.cli.output import Output
from pytest_defuse.cli.settings import store_root
from pytest_defuse.scenarios.decisions import stores_below
from pytest_defuse.scenarios.documents import read_document
from pytest_defuse.scenarios.problems import Problem, StoreError, refuse
from pytest_defuse.scenarios.schema import FORMAT

HELP = "rewrite files of older formats; comments and contact sheets stay"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if files are of older formats")


def run(arguments: argparse.Namespace) -> Output:
    """Rewrite all old files; if any file cannot be read, none is.

    The layout of a file does not matter, only its format.
    """
    problems: list[Problem] = []
    old: dict[str, int] = {}
    stores = stores_below(store_root(arguments))
    for store in stores:
        for path, kind in store.files():
            try:
                number = read_document(path, kind).format
            except StoreError as error:
                problems += error.problems
            else:
                old |= {str(path): number} if number < FORMAT else {}
    refuse(problems)
    if not arguments.check:
        for store in stores:
            store.migrate()
    verb = "is" if arguments.check else "was"
    lines = [f"{path} {verb} of format {number}" for path, number in old.items()]
    values = [{"file": path, "format": number} for path, number in old.items()]
    return Output(lines or [f"Every file is of format {FORMAT}."], values, 1 if old and arguments.check else 0)
