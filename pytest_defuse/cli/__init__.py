"""The command ``pytest-defuse``: what is not a test run. Each subcommand is a function that returns an Output."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_defuse.cli import exchange, files, labelling, reports
from pytest_defuse.cli.common import Output, as_text
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.escaping import visible

EXIT_CODES = """\
exit codes:
  0  done; for diff: nothing changed
  1  verify found problems; diff found changes; migrate --check found old
     files; votes --decide left candidates undecided
  2  wrong arguments, or a file that cannot be used; nothing was written
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit codes are those of ``pytest-defuse --help``."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal of ASCII or of a code page shows the rest as escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    as_json = getattr(arguments, "json", False)
    try:
        output: Output = arguments.run(arguments)
    except (DefuseError, OSError) as error:
        words = str(error)
        if isinstance(error, OSError):
            words = visible(f"{error.filename or 'A file'} cannot be used ({error.strerror or error}).")
        print(words, file=sys.stderr)
        if as_json:
            print(as_text({"error": words.splitlines()}))
        return 2
    lines = [as_text(output.values)] if as_json else [*map(visible, output.lines), *output.workflow_commands]
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has stopped, such as "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return output.code


def _parser() -> argparse.ArgumentParser:
    """Every subcommand with its arguments."""
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

    def add(name: str, run: Callable[[argparse.Namespace], Output], words: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[shared], help=words, description=f"{words}.")
        command.set_defaults(run=run)
        return command

    review = add("review", labelling.review, "label scenarios on a local page")
    review.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: any free one)")
    review.add_argument("--no-browser", action="store_true", help="print the address only")
    review.add_argument(
        "--annotator", metavar="NAME", help="name for the votes on single tiles (default: git's user, or the system's)"
    )

    label = add("label", labelling.label, "accept scenarios under a label, or reject them")
    label.add_argument("ids", nargs="+", metavar="ID", help="id of a scenario, from pytest-defuse list")
    decision = label.add_mutually_exclusive_group(required=True)
    decision.add_argument("--label", metavar="NAME", help="the class that the images show")
    decision.add_argument("--reject", action="store_true", help="reject: the images show no class, or several")

    add("list", labelling.show, "show all scenarios")

    votes = add("votes", labelling.votes, "show the votes on single tiles, and the agreement of annotators")
    votes.add_argument("--only", nargs="+", default=[], metavar="ID", help="scenarios (default: all)")
    votes.add_argument(
        "--decide", action="store_true", help="accept and reject candidates by their votes, and exclude tiles"
    )

    add("verify", files.verify, "check every file of the store")

    diff = add("diff", reports.diff, "compare the scenarios of two git revisions")
    diff.add_argument("base", metavar="BASE", help="the older revision, such as main")
    diff.add_argument("head", metavar="HEAD", nargs="?", default="HEAD", help="the newer one (default: HEAD)")
    diff.add_argument(
        "--merge-base",
        action="store_true",
        help="compare with the last commit that HEAD shares with BASE, as a pull request does",
    )
    diff.add_argument("--markdown", metavar="FILE", type=Path, help="write markdown for a comment")
    diff.add_argument("--html", metavar="FILE", type=Path, help="write a self-contained page with the contact sheets")
    diff.add_argument(
        "--pictures",
        metavar="URL",
        help="address of the repository's files, with {commit} in it (default: known on GitHub)",
    )

    export = add("export", exchange.export_tiles, "write tiles for Label Studio or SageMaker Ground Truth")
    export.add_argument("service", choices=list(exchange.WRITERS))
    export.add_argument("folder", metavar="FOLDER", type=Path, help="new folder to write to")
    export.add_argument("--only", nargs="+", default=[], metavar="ID", help="scenarios (default: every candidate)")
    export.add_argument("--tiles", type=int, default=10, metavar="N", help="tiles of each sheet (default: 10)")
    export.add_argument("--held-out", action="store_true", help="also tiles of the held-out sheet")
    prefix = ", ".join(f"default for {service}: {prefix}" for service, prefix in exchange.PREFIXES.items())
    export.add_argument(
        "--prefix",
        metavar="TEXT",
        help=f"prefix of an image's path in the service, such as s3://bucket/folder/ ({prefix})",
    )

    votes_file = add("import", exchange.import_votes, "add votes from Label Studio or SageMaker Ground Truth")
    votes_file.add_argument("service", choices=list(exchange.READERS))
    votes_file.add_argument("file", metavar="FILE", type=Path, help="JSON export, or output manifest")

    migrate = add("migrate", files.migrate, "rewrite files of older formats; comments and contact sheets stay")
    migrate.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if files are of older formats"
    )

    schema = add("schema", files.schema, "print the JSON Schema of a store's files")
    kinds = list(files.SCHEMAS)
    schema.add_argument("kind", nargs="?", choices=kinds, default=kinds[0], help="kind of file (default: scenario)")

    report = add("report", reports.report, "render the reports of a run from its results")
    report.add_argument(
        "results", type=Path, metavar="RESULTS.json", help="results of pytest --defuse-results; run in the same folder"
    )
    report.add_argument("--html", type=Path, metavar="FILE", help="write the self-contained page")
    report.add_argument("--markdown", type=Path, metavar="FILE", help="write the summary")
    report.add_argument("--code-quality", type=Path, metavar="FILE", help="write GitLab's code quality report")
    report.add_argument("--annotations", action="store_true", help="print annotations for GitHub Actions")
    return parser
