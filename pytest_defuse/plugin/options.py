"""The one table of options: command line, then environment, then ini, then default."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_defuse.runtime.errors import DefuseError

if TYPE_CHECKING:
    from pytest_defuse.scenarios.bounds import Bounds


@dataclass(frozen=True)
class Option:
    """One row: ``--defuse-<name>``, ``DEFUSE_<NAME>``, ini key ``defuse_<name>``.

    A row without ``metavar`` is a switch.
    """

    name: str
    help: str
    metavar: str | None = None
    default: str = ""

    @property
    def key(self) -> str:
        """The name in Python and in ini files."""
        return "defuse_" + self.name.replace("-", "_")


MEASURING = ("defuse_correct", "defuse_store", "defuse_device", "defuse_seed", "defuse_bounds", "defuse_baseline")
"""Keys of the options that change what a gate measures."""

TABLE = (
    Option("discover", "search for failures and write candidate scenarios to the store"),
    Option("correct", "finetune, gate the corrected model, write its checkpoint if the bounds hold"),
    Option("correct-output", "where the corrected model goes (default: beside the checkpoint)", "FILE.safetensors"),
    Option("store", "where scenarios live", "DIR", "fixtures"),
    Option("cache", "where trained generators and judges are kept", "DIR", ".defuse_cache"),
    Option("device", "auto, cpu, cuda, cuda:N or mps", "DEVICE", "auto"),
    Option("seed", "what all randomness comes from", "N", "0"),
    Option("bounds", 'bounds where a marker names none, such as "max_flips=3 confidence=0.95"', "BOUNDS"),
    Option("collect", "collect the scenario.yaml files among the given paths as tests"),
    Option("results", "write all results as JSON; pytest-defuse report renders it again", "FILE.json"),
    Option("report", "write a self-contained HTML report", "FILE.html"),
    Option("summary", "write a markdown summary; also to $GITHUB_STEP_SUMMARY when that is set", "FILE.md"),
    Option("code-quality", "write what does not hold as GitLab's code quality report", "FILE.json"),
    Option("baseline", "compare with the predictions of an earlier run", "FILE"),
    Option("save-baseline", "save this run's predictions", "FILE"),
)


@dataclass(frozen=True)
class Options:
    """The options of one session, resolved; relative paths are taken from the rootdir or, if given on
    the command line, from where pytest was started."""

    discover: bool
    correct: bool
    store: Path
    cache: Path
    device: str
    seed: int
    report: Path | None
    summary: Path | None
    baseline: Path | None
    save_baseline: Path | None
    correct_output: Path | None = None
    results: Path | None = None
    code_quality: Path | None = None
    bounds: "Bounds | None" = None
    collect: bool = False


@dataclass(frozen=True)
class Sources:
    """Where options come from.

    Attributes:
        command_line: by :attr:`Option.key`; None where an option was not given.
        environment: environment variables.
        ini: by :attr:`Option.key`; empty where the ini file has no such key.
        start: the folder that paths on the command line are relative to.
        root: the folder that all other paths are relative to.
    """

    command_line: Mapping[str, object]
    environment: Mapping[str, str]
    ini: Mapping[str, str]
    start: Path
    root: Path

    def text_of(self, row: Option) -> tuple[str, str]:
        """The text of an option, and the name of the source it comes from."""
        given = self.command_line.get(row.key)
        if given is not None:
            return str(given), f"--defuse-{row.name}"
        variable = row.key.upper()
        if text := self.environment.get(variable):
            return text, f"environment variable {variable}"
        if text := self.ini.get(row.key):
            return text, f"ini key {row.key}"
        return row.default, "default"


def resolve(sources: Sources) -> Options:
    """The session's options.

    Raises:
        DefuseError: a value that cannot be read; it names where the value comes from.
    """
    values: dict[str, Any] = {}
    for row in TABLE:
        text, source = sources.text_of(row)
        name = row.name.replace("-", "_")
        if row.metavar is None:
            values[name] = _switch(text, source)
        elif row.metavar == "N":
            values[name] = _number(text, source)
        elif row.metavar == "BOUNDS":
            values[name] = _bounds(text, source) if text.strip() else None
        elif row.metavar == "DEVICE":
            values[name] = text
        else:
            base = sources.start if source.startswith("--") else sources.root
            values[name] = Path(os.path.normpath(base / text)) if text else None
    return Options(**values)


def to_repeat(sources: Sources) -> list[str]:
    """The arguments that another ``pytest`` in this repository needs to measure the same.

    Ini files are in the repository; an environment variable may exist in this shell or service alone.
    """
    arguments = []
    for row in TABLE:
        text, source = sources.text_of(row)
        if row.key in MEASURING and source.startswith(("--", "environment")):
            if row.metavar is not None:
                arguments.append(f"--defuse-{row.name}={text}")
            elif _switch(text, source):
                arguments.append(f"--defuse-{row.name}")
    return arguments


def _switch(text: str, source: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("", "false", "0", "no", "off"):
        return False
    raise DefuseError(f"{source} is {text!r}: give true or false.")


def _bounds(text: str, source: str) -> "Bounds":
    from pytest_defuse.scenarios.bounds import Bounds  # loads pydantic

    return Bounds.parse(text, source)


def _number(text: str, source: str) -> int:
    if not text.isdigit():
        raise DefuseError(f"{source} is {text!r}: give a whole number of 0 or more.")
    return int(text)
