"""The subcommands that write reports: diff and report."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from pytest_defuse.cli.common import WIDTH, Output, store_root, terminal_width, wrapped, write
from pytest_defuse.report import difference as pages
from pytest_defuse.report.findings import findings, render_github, render_gitlab, repository_root
from pytest_defuse.report.html import render_html
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results_file import load_results
from pytest_defuse.report.terminal import render
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import append_text
from pytest_defuse.scenarios.differences import difference
from pytest_defuse.scenarios.revisions import Repository, Revision


def diff(arguments: Namespace) -> Output:
    """Exit code 0: nothing changed; 1: something did; 2: the revisions, or files in HEAD, cannot be read.

    The markdown is also appended to $GITHUB_STEP_SUMMARY if that is set.
    """
    repository = Repository.around(store_root(arguments))
    base, head = repository.commit(arguments.base), repository.commit(arguments.head)
    if arguments.merge_base:
        base = repository.merge_base(base, head)
    found = difference(Revision(repository, base), Revision(repository, head))
    markdown = pages.render_markdown(found, arguments.pictures or _on_github())
    if arguments.markdown:
        write(arguments.markdown, markdown)
    if arguments.html:
        write(arguments.html, pages.render_html(found))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        write(Path(summary), markdown, append_text)
    lines = wrapped(pages.headline(found), *found.shared)
    for change in found.changes:
        lines += ["", *wrapped(f"{change.subject}/{change.id}: {', '.join(change.kinds)}", *change.details)]
    return Output(lines, pages.render_json(found), 2 if found.problems else 1 if found else 0)


def report(arguments: Namespace) -> Output:
    """Write the requested files; print the annotations or, without options, the terminal's rendering."""
    start = Path.cwd()
    results = load_results(arguments.results, start)
    found = findings(results, repository_root())
    files: list[tuple[Path | None, Callable[[], str]]] = [
        (arguments.html, lambda: render_html(results)),
        (arguments.markdown, lambda: render_markdown(results)),
        (arguments.code_quality, lambda: render_gitlab(found)),
    ]
    try:
        pages = [(path, rendered()) for path, rendered in files if path is not None]
        width, encoding = terminal_width(WIDTH), sys.stdout.encoding
        text = render(results, width=width, color=False, start=start, verbose=True, encoding=encoding)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Figures of a correction, a discovery or a failure mode that do not belong together.
        raise DefuseError(
            f"{arguments.results} contradicts itself ({type(error).__name__}: {error}): make it with "
            f"pytest --defuse-results={arguments.results}."
        ) from error
    for path, page in pages:
        write(path, page)
    written = [str(path) for path, _ in pages]
    if arguments.annotations:
        return Output([], {"files": written}, workflow_commands=render_github(found).splitlines())
    lines = [f"{path} is written" for path in written] or text.splitlines()
    return Output(lines, {"files": written})


def _on_github() -> str | None:
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{repository}/blob/{{commit}}" if server and repository else None
