"""The output of a subcommand: the same in words and as JSON."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 80
"""Columns of a terminal that nobody has resized."""


@dataclass(frozen=True)
class Output:
    """Lines for people, values for programs, and the exit code."""

    lines: Sequence[str]
    values: Any
    code: int = 0


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
