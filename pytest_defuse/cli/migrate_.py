"""``pytest-defuse migrate``: write files of an older format anew."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from pytest_defuse.cli.answer import Answer
from pytest_defuse.cli.settings import store_root
from pytest_defuse.scenarios.decisions import stores_below
from pytest_defuse.scenarios.documents import Document, Problem, StoreError, read_document
from pytest_defuse.scenarios.schema import FORMAT, FileRecord, ScenarioRecord, StoreRecord, VotesRecord
from pytest_defuse.scenarios.store import Store

HELP = "write files of an older format, or another form than the canonical, anew"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something is to be done")


def run(arguments: argparse.Namespace) -> Answer:
    """Write all of them, or, where one cannot be read, none."""
    problems: list[Problem] = []
    old: list[tuple[Store, Path, Document[FileRecord], type[FileRecord]]] = []
    stores = stores_below(store_root(arguments))
    for store in stores:
        for path, kind in _files(store):
            try:
                document: Document[FileRecord] = read_document(path, kind)
            except StoreError as error:
                problems += error.problems
            else:
                old += [] if document.canonical else [(store, path, document, kind)]
    if problems:
        raise StoreError(problems)
    verb = "is" if arguments.check else "was"
    lines = [
        f"{path} {verb} of format {document.format}" if document.format < FORMAT else f"{path} {verb} not canonical"
        for _, path, document, _ in old
    ]
    if not arguments.check:
        for store in stores:
            store.write_schemas()
        for store, path, _, kind in old:
            store.rewrite(path, kind)
    values = [{"file": str(path), "format": document.format} for _, path, document, _ in old]
    return Answer(
        lines or [f"Every file is of format {FORMAT} and canonical."], values, 1 if old and arguments.check else 0
    )


def _files(store: Store) -> Iterator[tuple[Path, type[FileRecord]]]:
    yield store.folder / "store.yaml", StoreRecord
    for folder in store.folders():
        yield folder / "scenario.yaml", ScenarioRecord
        for path in sorted((folder / "votes").glob("*.yaml")):
            yield path, VotesRecord
