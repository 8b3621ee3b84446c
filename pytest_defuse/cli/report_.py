"""``pytest-defuse report``: the reports of a run again, from its results alone."""

import argparse
from collections.abc import Callable
from pathlib import Path

from pytest_defuse.cli.answer import WIDTH, Answer
from pytest_defuse.report.findings import findings, render_github, render_gitlab, repository_root
from pytest_defuse.report.html import render_html
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results_file import load_results
from pytest_defuse.report.terminal import render
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_text

HELP = "render the results of a run again"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument(
        "results", type=Path, metavar="RESULTS.json", help="of pytest --defuse-results, in the folder in which it ran"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the self-contained page")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the summary")
    parser.add_argument("--code-quality", type=Path, metavar="FILE", help="write GitLab's code quality report")
    parser.add_argument("--annotations", action="store_true", help="print annotations for GitHub Actions")


def run(arguments: argparse.Namespace) -> Answer:
    """Write what was asked for; print the annotations, or the terminal's rendering where nothing was asked for.

    Raises:
        DefuseError: the results cannot be read, or a file cannot be written.
    """
    here = Path.cwd()
    results = load_results(arguments.results, here)
    found = findings(results, repository_root())
    files: list[tuple[Path | None, Callable[[], str]]] = [
        (arguments.html, lambda: render_html(results)),
        (arguments.markdown, lambda: render_markdown(results)),
        (arguments.code_quality, lambda: render_gitlab(found)),
    ]
    for path, rendered in files:
        if path is not None:
            try:
                replace_text(path, rendered())
            except OSError as error:
                raise DefuseError(f"{path} cannot be written ({error.strerror}): name another file.") from error
    written = [str(path) for path, _ in files if path is not None]
    if arguments.annotations:
        return Answer(render_github(found).splitlines(), {"files": written})
    if written:
        return Answer([f"{path} is written" for path in written], {"files": written})
    return Answer(render(results, width=WIDTH, color=False, start=here, verbose=True).splitlines(), {"files": []})
