"""``pytest-defuse review``: label scenarios on a local page."""

import argparse

from pytest_defuse.cli.output import Output
from pytest_defuse.cli.settings import store_root
from pytest_defuse.runtime.errors import DefuseError

HELP = "label scenarios on a local page"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument(
        "--annotator", metavar="NAME", help="name for the votes on single tiles (default: git's user, or the system's)"
    )


def run(arguments: argparse.Namespace) -> Output:
    """Serve the page until Ctrl-C."""
    try:
        from pytest_defuse.review.app import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise DefuseError("The page needs two more packages: pip install 'pytest-defuse[review]'.") from error

    browser = not arguments.no_browser
    serve(store_root(arguments), port=arguments.port, browser=browser, annotator=arguments.annotator)
    return Output([], None)
