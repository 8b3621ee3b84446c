"""What the subcommands share: output, the folder of the store, and files that they write."""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from pytest_defuse.plugin.inifile import options_here
from pytest_defuse.report.words import relative
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_text

WIDTH = 80
"""Default width of a terminal, in columns."""


@dataclass(frozen=True)
class Output:
    """What a subcommand prints, and its exit code.

    Attributes:
        lines: for people; names in them are printed escaped.
        values: for programs, as JSON.
        workflow_commands: lines for GitHub Actions, printed as they are.
    """

    lines: Sequence[str]
    values: Any
    code: int = 0
    workflow_commands: Sequence[str] = ()


def as_text(values: Any) -> str:
    """Values as JSON in ASCII, which no log takes for a workflow command."""
    return json.dumps(values, indent=2).replace("##[", "##\\u005b")


def terminal_width(otherwise: int) -> int:
    """Columns of the terminal; ``otherwise`` if the output goes to a file or another program."""
    return get_terminal_size().columns if sys.stdout.isatty() else otherwise


def store_root(arguments: argparse.Namespace) -> Path:
    """The folder of the store as ``pytest`` would find it, relative to the working directory."""
    folder = getattr(arguments, "defuse_store", None)
    store = options_here([] if folder is None else [f"--defuse-store={folder}"]).store
    return Path(relative(store, Path.cwd()))


def write(path: Path, text: str, put: Callable[[Path, str], None] = replace_text) -> None:
    """Write a file for the user; a DefuseError if that is impossible."""
    try:
        put(path, text)
    except OSError as error:
        raise DefuseError(f"{path} cannot be written ({error.strerror}): name another file.") from error


def wrapped(heading: str, *details: str) -> list[str]:
    """Sentences in lines of at most 80 columns; details are indented. Ids and names are never broken."""
    lines = []
    for sentence, indent in [(heading, ""), *((detail, "  ") for detail in details)]:
        lines += textwrap.wrap(
            sentence,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines
