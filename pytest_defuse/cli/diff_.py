"""``pytest-defuse diff BASE [HEAD]``: the changes that a reviewer of a branch needs to see."""

import argparse
import os
from pathlib import Path

from pytest_defuse.cli.output import Output, wrapped
from pytest_defuse.cli.settings import store_root
from pytest_defuse.report.difference import headline, render_html, render_json, render_markdown
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import append_text, replace_text
from pytest_defuse.scenarios.differences import difference
from pytest_defuse.scenarios.revisions import Repository, Revision

HELP = "compare the scenarios of two git revisions"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("base", metavar="BASE", help="the older revision, such as main")
    parser.add_argument("head", metavar="HEAD", nargs="?", default="HEAD", help="the newer one (default: HEAD)")
    parser.add_argument(
        "--merge-base",
        action="store_true",
        help="compare with the last commit that HEAD shares with BASE, as a pull request does",
    )
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write markdown for a comment")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a self-contained page with the contact sheets")
    parser.add_argument(
        "--pictures",
        metavar="URL",
        help="address of the repository's files, with {commit} in it (default: known on GitHub)",
    )


def run(arguments: argparse.Namespace) -> Output:
    """Exit code 0: nothing changed; 1: something did; 2: the revisions, or files in HEAD, cannot be read.

    The markdown is also appended to $GITHUB_STEP_SUMMARY if that is set.
    """
    repository = Repository.around(store_root(arguments))
    base, head = repository.commit(arguments.base), repository.commit(arguments.head)
    if arguments.merge_base:
        base = repository.merge_base(base, head)
    found = difference(Revision(repository, base), Revision(repository, head))
    markdown = render_markdown(found, arguments.pictures or _on_github())
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    try:
        if arguments.markdown:
            replace_text(arguments.markdown, markdown)
        if arguments.html:
            replace_text(arguments.html, render_html(found))
        if summary:
            append_text(Path(summary), markdown)
    except OSError as error:
        raise DefuseError(f"{error.filename} cannot be written ({error.strerror}): name another file.") from error
    code = 2 if found.problems else 1 if found else 0
    lines = wrapped(headline(found), *found.shared)
    for change in found.changes:
        lines += ["", *wrapped(f"{change.subject}/{change.id}: {', '.join(change.kinds)}", *change.details)]
    return Output(lines, render_json(found), code)


def _on_github() -> str | None:
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{repository}/blob/{{commit}}" if server and repository else None
