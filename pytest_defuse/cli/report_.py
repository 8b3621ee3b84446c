"""``pytest-defuse report``: render the reports of a run from its results."""

import argparse
from collections.abc import Callable
from pathlib import Path

from pytest_defuse.cli.output import WIDTH, Output
from pytest_defuse.report.findings import findings, render_github, render_gitlab, repository_root
from pytest_defuse.report.html import render_html
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results_file import load_results
from pytest_defuse.report.terminal import render
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_text

HELP = "render the reports of a run from its results"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "results",
        type=Path,
        metavar="RESULTS.json",
        help="results of pytest --defuse-results; run in the same folder",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the self-contained page")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the summary")
    parser.add_argument("--code-quality", type=Path, metavar="FILE", help="write GitLab's code quality report")
    parser.add_argument("--annotations", action="store_true", help="print annotations for GitHub Actions")


def run(arguments: argparse.Namespace) -> Output:
    """Write the requested files; print the annotations or, without options, the terminal's rendering.

    Raises:
        DefuseError: the results cannot be read, or a file cannot be written.
    """
    start = Path.cwd()
    results = load_results(arguments.results, start)
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
        return Output(render_github(found).splitlines(), {"files": written})
    if written:
        return Output([f"{path} is written" for path in written], {"files": written})
    return Output(render(results, width=WIDTH, color=False, start=start, verbose=True).splitlines(), {"files": []})
