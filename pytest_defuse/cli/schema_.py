"""``pytest-defuse schema``: the JSON Schema of a store's files, for editors and other programs."""

import argparse
import json

from pytest_defuse.cli.output import Output
from pytest_defuse.scenarios.schema import FILE_RECORDS, json_schema

HELP = "print the JSON Schema of a store's files"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    names = [kind.schema_name for kind in FILE_RECORDS]
    parser.add_argument("kind", nargs="?", choices=names, default=names[0], help="kind of file (default: scenario)")


def run(arguments: argparse.Namespace) -> Output:
    """Print the schema, which is JSON also without --json."""
    kind = next(kind for kind in FILE_RECORDS if kind.schema_name == arguments.kind)
    schema = json_schema(kind)
    return Output([json.dumps(schema, indent=2)], schema)
