"""Migration: the files of a store, written in the present format."""

import contextlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from pytest_defuse.scenarios.documents import Document, read_document
from pytest_defuse.scenarios.problems import Problem, raise_if_any, read_or_report, write_plain
from pytest_defuse.scenarios.schema import FORMAT, FileRecord
from pytest_defuse.scenarios.store import GIT_FILES, IGNORED, Store
from pytest_defuse.scenarios.writing import rewritten

OLD_GITIGNORES = (IGNORED, f"{IGNORED}.machine.json.*\n")
"""What older versions wrote; :func:`migrate` replaces it."""


def outdated(stores: Iterable[Store]) -> list[tuple[Document[FileRecord], Document[FileRecord]]]:
    """The files of older formats, each as it is and as :func:`migrate` writes it."""
    problems: list[Problem] = []
    found = []
    for path, kind in (file for store in stores for file in store.files()):
        old: Document[FileRecord] | None = read_or_report(partial(read_document, path, kind), problems)
        if old and old.format < FORMAT and (new := read_or_report(partial(rewritten, old), problems)):
            found.append((old, new))
    raise_if_any(problems)
    return found


def migrate(stores: Sequence[Store]) -> None:
    """Write the files of older formats in the present one, and the present .gitignore where there is an older one.

    Contact sheets stay as they are.
    machine.json comes before scenario.yaml: an interruption leaves a file of the old format, which is valid.

    Raises:
        StoreError: a file of one of the stores cannot be rewritten; nothing was written.
    """
    with contextlib.ExitStack() as locks:
        for store in stores:
            locks.enter_context(store.writing())
        files = outdated(stores)
        for store in stores:
            store.write_schemas()
            ignore = store.folder / ".gitignore"
            if not ignore.is_symlink() and ignore.read_text(encoding="utf-8", errors="replace") in OLD_GITIGNORES:
                write_plain(ignore, GIT_FILES[".gitignore"].encode())
        for old, new in files:
            path = Path(old.file)
            if old.machine is not None:
                write_plain(path.with_name("machine.json"), old.machine.text.encode())
            write_plain(path, new.content)
