"""The one table of options: command line, then environment, then ini, then default."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.bounds import parse


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
    bounds: Mapping[str, Any] = field(default_factory=dict)
    collect: bool = False


def register(parser: pytest.Parser) -> None:
    """Tell pytest about every row. Defaults are None there, so that ini values can win."""
    group = parser.getgroup("defuse", "model regression testing (pytest-defuse)")
    for row in TABLE:
        flag = f"--defuse-{row.name}"
        if row.metavar is None:
            group.addoption(flag, dest=row.key, action="store_true", default=None, help=row.help)
            parser.addini(row.key, row.help, type="string", default="")
        else:
            default = f" (default: {row.default})" if row.default else ""
            group.addoption(flag, dest=row.key, metavar=row.metavar, default=None, help=row.help + default)
            parser.addini(row.key, row.help, type="string", default="")


def resolve(config: pytest.Config) -> Options:
    """The session's options.

    Raises:
        pytest.UsageError: a value that cannot be read; it names where the value comes from.
    """
    values: dict[str, Any] = {}
    for row in TABLE:
        text, source = _raw(row, config)
        name = row.name.replace("-", "_")
        if row.metavar is None:
            values[name] = _switch(text, source)
        elif row.metavar == "N":
            values[name] = _number(text, source)
        elif row.metavar == "BOUNDS":
            values[name] = _bounds(text, source)
        elif row.metavar == "DEVICE":
            values[name] = text
        else:
            base = config.invocation_params.dir if source.startswith("--") else config.rootpath
            values[name] = Path(os.path.normpath(base / text)) if text else None
    return Options(**values)


def to_repeat(config: pytest.Config) -> list[str]:
    """What another ``pytest`` in this repository needs on its command line to measure the same.

    Ini files are in the repository; an environment variable may be of this shell or service alone.
    """
    arguments = []
    for row in TABLE:
        text, source = _raw(row, config)
        if row.key in MEASURING and source.startswith(("--", "environment")):
            if row.metavar is not None:
                arguments.append(f"--defuse-{row.name}={text}")
            elif _switch(text, source):
                arguments.append(f"--defuse-{row.name}")
    return arguments


def _raw(row: Option, config: pytest.Config) -> tuple[str, str]:
    """A row's text and where it comes from."""
    given = config.getoption(row.key)
    if given is not None:
        return str(given), f"--defuse-{row.name}"
    variable = row.key.upper()
    if os.environ.get(variable):
        return os.environ[variable], f"environment variable {variable}"
    if text := str(config.getini(row.key)):
        return text, f"ini key {row.key}"
    return row.default, "default"


def _switch(text: str, source: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("", "false", "0", "no", "off"):
        return False
    raise pytest.UsageError(f"{source} is {text!r}: give true or false.")


def _number(text: str, source: str) -> int:
    if not text.isdigit():
        raise pytest.UsageError(f"{source} is {text!r}: give a whole number of 0 or more.")
    return int(text)


def _bounds(text: str, source: str) -> Mapping[str, Any]:
    try:
        return parse(text, source)
    except DefuseError as error:
        raise pytest.UsageError(str(error)) from None
