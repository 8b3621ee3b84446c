"""``pytest-defuse schema``: the JSON Schema of a store's files, for editors and other programs."""

import argparse
import json

from pytest_defuse.cli.answer import Answer
from pytest_defuse.scenarios.schema import FILE_RECORDS, json_schema

HELP = "print the JSON Schema of a store's files"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    names = [kind.schema_name for kind in FILE_RECORDS]
    parser.add_argument("kind", nargs="?", choices=names, default=names[0], help="which file (default: scenario)")


def run(arguments: argparse.Namespace) -> Answer:
    """Print it; it is JSON with and without --json."""
    kind = next(kind for kind in FILE_RECORDS if kind.schema_name == arguments.kind)
    schema = json_schema(kind)
    return Answer([json.dumps(schema, indent=2)], schema)
