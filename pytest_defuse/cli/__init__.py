"""The command ``pytest-defuse``: what is not a test run.

Each subcommand is a module with its ``HELP``, its ``arguments`` and ``run``, which returns an :class:`Output`.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from pytest_defuse.cli.output import Output
from pytest_defuse.runtime.errors import DefuseError

VERBS = ("review", "label", "list", "votes", "verify", "diff", "export", "import", "migrate", "schema", "report")
EXIT_CODES = """\
exit codes:
  0  done; for diff: nothing changed
  1  verify found problems; diff found changes; migrate --check found old
     files; votes --decide left candidates undecided
  2  wrong arguments, or a file that cannot be used; nothing was written
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit codes are those of ``pytest-defuse --help``."""
    arguments = _parser().parse_args(argv)
    as_json = getattr(arguments, "json", False)
    try:
        output: Output = arguments.run(arguments)
    except (DefuseError, OSError) as error:
        words = str(error)
        if isinstance(error, OSError):
            words = f"{error.filename or 'A file'} cannot be used ({error.strerror or error})."
        print(words, file=sys.stderr)
        if as_json:
            print(json.dumps({"error": words.splitlines()}, indent=2))
        return 2
    lines = [json.dumps(output.values, indent=2, ensure_ascii=False)] if as_json else output.lines
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has stopped, such as "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return output.code


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--defuse-store", metavar="DIR", help="folder of the scenarios (default: as for pytest)")
    shared.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(
        prog="pytest-defuse",
        description="Label, check and compare the scenarios of pytest-defuse.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in VERBS:
        verb = import_module(f"{__name__}.{name}_")
        command = commands.add_parser(name, parents=[shared], help=verb.HELP, description=f"{verb.HELP}.")
        verb.arguments(command)
        command.set_defaults(run=verb.run)
    return parser
