"""The subcommands about the store's files: verify, migrate and schema."""

import json
from argparse import Namespace

from pytest_defuse.cli.common import Output, store_root
from pytest_defuse.report.words import counted
from pytest_defuse.scenarios.lookup import stores_below
from pytest_defuse.scenarios.migration import migrate as migrate_stores
from pytest_defuse.scenarios.migration import outdated
from pytest_defuse.scenarios.schema import FILE_RECORDS, FORMAT, json_schema
from pytest_defuse.scenarios.verify import verify as problems_of

SCHEMAS = {kind.schema_name: kind for kind in FILE_RECORDS}


def verify(arguments: Namespace) -> Output:
    """Print one line per problem; the exit code is 0 if all are warnings."""
    root = store_root(arguments)
    stores = stores_below(root)
    problems = problems_of(stores)
    count = sum(len(store.folders()) for store in stores)
    lines = [str(problem) for problem in problems]
    invalid = not all(problem.warning for problem in problems)
    if not invalid:
        warned = f", {counted(len(problems), 'warning')}" if problems else ""
        lines.append(f"{counted(count, 'scenario')} in {root}: every file is valid{warned}")
    listed = [{"file": p.file, "line": p.line, "message": p.words, "warning": p.warning} for p in problems]
    return Output(lines, {"scenarios": count, "problems": listed}, 1 if invalid else 0)


def migrate(arguments: Namespace) -> Output:
    """Rewrite all old files; if any of them cannot be rewritten, none is.

    The layout of a file does not matter, only its format.
    """
    stores = stores_below(store_root(arguments))
    old = {document.file: document.format for document, _ in outdated(stores)}
    if not arguments.check:
        migrate_stores(stores)
    verb = "is" if arguments.check else "was"
    lines = [f"{path} {verb} of format {number}" for path, number in old.items()]
    values = [{"file": path, "format": number} for path, number in old.items()]
    return Output(lines or [f"Every file is of format {FORMAT}."], values, 1 if old and arguments.check else 0)


def schema(arguments: Namespace) -> Output:
    """Print a JSON Schema, which is JSON also without --json."""
    values = json_schema(SCHEMAS[arguments.kind])
    return Output(json.dumps(values, indent=2).splitlines(), values)
