"""The command ``pytest-defuse``: what is not a test run."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_defuse.errors import DefuseError
from pytest_defuse.options import Options, resolve

if TYPE_CHECKING:
    from rich.table import Table

    from pytest_defuse.scenarios.store import Scenario, Store


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        0: done; 1: ``verify`` found problems; 2: what was asked for makes no sense here.
    """
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except DefuseError as error:
        print(error, file=sys.stderr)
        return 2
    return code


def options_here(arguments: Sequence[str] = ()) -> Options:
    """The options that ``pytest *arguments`` would have in this folder, without running anything of it.

    Raises:
        DefuseError: pytest cannot start here, or an option has a value that cannot be read.
    """
    try:
        pytest.main(list(arguments), plugins=[_Interceptor()])
    except _Resolved as resolved:
        return resolved.options
    raise DefuseError("pytest does not start in this folder: mend what it says above.")


class _Resolved(Exception):  # noqa: N818 - not an error
    """Carries the options out of pytest's start-up."""

    def __init__(self, options: Options) -> None:
        self.options = options


class _Interceptor:
    """Ends pytest's start-up as soon as its command line and ini file are read.

    Any later, and conftest.py would load the user's model, and coverage would erase its last results.
    """

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> Generator[None]:
        known = early_config.known_args_namespace
        if not hasattr(known, "defuse_store"):
            raise DefuseError("pytest runs without this plugin here: load it with -p pytest_defuse.plugin.")
        early_config.option = known
        try:
            options = resolve(early_config)
        except pytest.UsageError as error:
            raise DefuseError(str(error)) from error
        raise _Resolved(options)
        yield  # what makes this a wrapper, which comes before every other plugin


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--defuse-store", metavar="DIR", help="where scenarios live (default: as for pytest)")
    parser = argparse.ArgumentParser(
        prog="pytest-defuse", description="Label and check the scenarios of pytest-defuse.", parents=[shared]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    label = commands.add_parser("label", parents=[shared], help="accept scenarios under a label, or reject them")
    label.add_argument("ids", nargs="+", metavar="ID", help="as pytest-defuse list shows it")
    decision = label.add_mutually_exclusive_group(required=True)
    decision.add_argument("--label", metavar="NAME", help="the class that the pictures show")
    decision.add_argument("--reject", action="store_true", help="the pictures show no class, or several")
    label.set_defaults(run=_label)

    listing = commands.add_parser("list", parents=[shared], help="show all scenarios")
    listing.set_defaults(run=_list)

    verify = commands.add_parser("verify", parents=[shared], help="check every file of the store")
    verify.set_defaults(run=_verify)

    from pytest_defuse.report import command

    report = commands.add_parser("report", help=command.HELP)
    command.add_arguments(report)
    report.set_defaults(run=_report)

    review = commands.add_parser("review", parents=[shared], help="label scenarios on a local page")
    review.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: a free one)")
    review.add_argument("--no-browser", action="store_true", help="print the address only")
    review.set_defaults(run=_review)
    return parser


def _root(arguments: argparse.Namespace) -> Path:
    """The folder of the store, as one would type it from here."""
    given = getattr(arguments, "defuse_store", None)
    store = options_here([] if given is None else [f"--defuse-store={given}"]).store
    from pytest_defuse.report.words import relative

    return Path(relative(store, Path.cwd()))


def _label(arguments: argparse.Namespace) -> int:
    from pytest_defuse.review.decisions import all_scenarios, check_label, decide, find

    present = all_scenarios(_root(arguments))
    chosen = {scenario.folder: scenario for scenario in (find(present, name) for name in arguments.ids)}
    if arguments.label is not None:
        for scenario in chosen.values():
            check_label(scenario, arguments.label)
    outcome = "rejected" if arguments.label is None else f"accepted as {arguments.label}"
    for scenario in chosen.values():
        decided = decide(scenario, arguments.label)
        print(f"{decided.id} {outcome}: {decided.yaml}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from pytest_defuse.report.words import counted
    from pytest_defuse.review.decisions import stores_below

    root = _root(arguments)
    stores = {store.folder.name: store.scenarios() for store in stores_below(root)}
    # What a file or another program reads is not folded.
    width = None if sys.stdout.isatty() else 1000
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    for subject, scenarios in stores.items():
        if len(stores) > 1:
            console.print(f"{subject}:")
        console.print(_table(scenarios), "")
    statuses = Counter(scenario.record.status for scenarios in stores.values() for scenario in scenarios)
    console.print(
        f"{counted(statuses['candidate'], 'candidate')}, {statuses['accepted']} accepted, "
        f"{statuses['rejected']} rejected in {root}",
        soft_wrap=True,
    )
    return 0


def _table(scenarios: Sequence["Scenario"]) -> "Table":
    from rich.table import Table

    from pytest_defuse.report.words import percent

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("scenario", "status", "label", "model says"):
        table.add_column(column, overflow="fold", no_wrap=column in ("scenario", "status"))
    table.add_column("fails", justify="right", no_wrap=True)
    for scenario in scenarios:
        record = scenario.record
        sheet, rate = record.sheets.held_out, record.failure_rate
        says = max(sheet.predicted, key=lambda name: sheet.predicted[name], default="")
        table.add_row(
            scenario.id,
            record.status,
            f"({record.proposed_label})" if record.label is None else record.label,
            f"{says} {sheet.predicted.get(says, 0)}/{sheet.images}",
            percent(rate.failed / rate.drawn),
        )
    return table


def _verify(arguments: argparse.Namespace) -> int:
    from pytest_defuse.report.words import counted
    from pytest_defuse.review.decisions import stores_below

    root = _root(arguments)
    stores = stores_below(root)
    # An unreadable store.yaml is met again with each of its scenarios.
    problems = list(dict.fromkeys(problem for store in stores for problem in _problems(store)))
    for problem in problems:
        print(problem)
    if not problems:
        count = sum(len(store.scenarios()) for store in stores)
        print(f"{counted(count, 'scenario')} in {root}: every file is whole")
    return 1 if problems else 0


def _problems(store: "Store") -> Iterator[str]:
    yield from _complaints(store.record)
    for folder in sorted(path for path in store.folder.iterdir() if path.is_dir() and path.name[0] != "."):
        try:
            scenario = store.get(folder.name)
        except DefuseError as error:
            yield from str(error).splitlines()
        else:
            yield from _complaints(partial(scenario.pixels, "correction"))
            yield from _complaints(partial(scenario.pixels, "held_out"))


def _complaints(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except DefuseError as error:
        return str(error).splitlines()
    return []


def _report(arguments: argparse.Namespace) -> int:
    from pytest_defuse.report.command import report

    print(report(arguments), end="")
    return 0


def _review(arguments: argparse.Namespace) -> int:
    try:
        from pytest_defuse.review.app import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise DefuseError("The page needs two more packages: pip install 'pytest-defuse[review]'.") from error

    serve(_root(arguments), port=arguments.port, browser=not arguments.no_browser)
    return 0
