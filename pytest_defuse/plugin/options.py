"""The table of options, and their resolution: command line, then environment, then ini file, then default.

The values here are NamedTuples: every pytest session creates the classes, and a dataclass takes several times as long.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_defuse.runtime.errors import DefuseError

if TYPE_CHECKING:
    from pytest_defuse.scenarios.bounds import Bounds


class Option(NamedTuple):
    """One option, a switch without ``metavar``: ``--defuse-<name>``, ``DEFUSE_<NAME>``, ini key ``defuse_<name>``."""

    name: str
    help: str
    metavar: str | None = None
    default: str = ""

    @property
    def key(self) -> str:
        """The option's ini key, which is also its dest."""
        return "defuse_" + self.name.replace("-", "_")


AFFECTS_RESULTS = (
    "defuse_correct",
    "defuse_store",
    "defuse_device",
    "defuse_seed",
    "defuse_bounds",
    "defuse_baseline",
    "defuse_first_run",
    "defuse_strict",
)
"""Keys of the options that change the results of a gate, which a command that repeats it must have."""

TABLE = (
    Option("discover", "search for failures and write candidate scenarios to the store"),
    Option("correct", "finetune, gate the corrected model, and write its checkpoint if every bound passes"),
    Option("correct-output", "file of the corrected model (default: next to the checkpoint)", "FILE.safetensors"),
    Option("store", "folder of the scenarios", "DIR", "fixtures"),
    Option("cache", "folder of trained generators and reference classifiers (judges)", "DIR", ".defuse_cache"),
    Option("device", "device of the models: auto, cpu, cuda, cuda:N or mps", "DEVICE", "auto"),
    Option("seed", "seed of all random numbers", "N", "0"),
    Option("bounds", 'bounds that no marker sets, such as "max_flips=3 confidence=0.95"', "BOUNDS"),
    Option("collect", "collect scenario.yaml files as tests"),
    Option("results", "write all results as JSON, which pytest-defuse report renders", "FILE.json"),
    Option("report", "write a self-contained HTML report", "FILE.html"),
    Option("summary", "write a markdown summary; also appended to $GITHUB_STEP_SUMMARY, if set", "FILE.md"),
    Option("code-quality", "write failures as a GitLab code quality report", "FILE.json"),
    Option("baseline", "compare with the predictions of an earlier run", "FILE"),
    Option("save-baseline", "save this run's predictions, if it passes", "FILE"),
    Option("first-run", "accept that there is no baseline yet, for bounds that need one"),
    Option("strict", "fail tests whose outcome is INCONCLUSIVE, instead of skipping them"),
)

OTHER_VARIABLES = ("DEFUSE_DATA",)
"""Environment variables of no option: the data sets of this project's benchmarks and external tests."""


class Options(NamedTuple):
    """The resolved options of one session.

    Relative paths start at the rootdir or, if given on the command line, at the folder in which pytest was started.
    """

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
    first_run: bool = False
    strict: bool = False

    @property
    def details(self) -> bool:
        """Whether results carry what only the HTML report shows; it can also be rendered from the results' file."""
        return bool(self.report or self.results)


class Sources(NamedTuple):
    """The places that an option's value may come from.

    Attributes:
        command_line: values by :attr:`Option.key`; None for an option that was not given.
        ini: values by key: by :attr:`Option.key`, empty if it is not in the ini file, and by the file's unknown keys.
        start: the folder that paths on the command line are relative to; others are relative to ``root``.
    """

    command_line: Mapping[str, object]
    environment: Mapping[str, str]
    ini: Mapping[str, str]
    start: Path
    root: Path

    def text_of(self, row: Option) -> tuple[str, str]:
        """The value of an option as text, and the name of its source."""
        value = self.command_line.get(row.key)
        if value is not None:
            return str(value), f"--defuse-{row.name}"
        variable = row.key.upper()
        if text := self.environment.get(variable):
            return text, f"environment variable {variable}"
        if text := self.ini.get(row.key):
            return text, f"ini key {row.key}"
        return row.default, "default"


def resolve(sources: Sources) -> Options:
    """The session's options; the message about an invalid value or name names its source."""
    _check_names(sources)
    return Options(**{row.key.removeprefix("defuse_"): _value(row, sources) for row in TABLE})


def holds_store(folder: Path) -> bool:
    """Whether a folder holds the store of a subject, also one that has lost its store.yaml."""
    return any(any(folder.glob(pattern)) for pattern in ("*/store.yaml", "*/*/scenario.yaml"))


def check_store(options: Options, sources: Sources) -> None:
    """Refuse a folder that an option names and that is no store, unless a discovery is to create it.

    An ini file may name an empty folder: the project's store, before its first discovery.

    Raises:
        DefuseError: the message names the option's source.
    """
    [source] = [sources.text_of(row)[1] for row in TABLE if row.name == "store"]
    folder = options.store
    of_subject = (folder / "store.yaml").exists()
    may_be_empty = source.startswith("ini") and folder.is_dir() and not of_subject
    if source == "default" or options.discover or holds_store(folder) or may_be_empty:
        return
    problem = "that folder has no store of any subject" if folder.is_dir() else "there is no such folder"
    correction = f"name {folder.parent}" if of_subject else "correct the name"
    raise DefuseError(
        f"{source} names the store {folder}, and {problem}: {correction}, or create the store with "
        "pytest --defuse-discover."
    )


def to_repeat(sources: Sources) -> list[str]:
    """The arguments with which another ``pytest`` in this repository gives the same results.

    Values from ini files are left out because these are in the repository; environment variables may not be set there.
    """
    arguments = []
    for row in TABLE:
        text, source = sources.text_of(row)
        if row.key in AFFECTS_RESULTS and source.startswith(("--", "environment")):
            if row.metavar is not None:
                arguments.append(f"--defuse-{row.name}={text}")
            elif _switch(text, source):
                arguments.append(f"--defuse-{row.name}")
    return arguments


def _check_names(sources: Sources) -> None:
    """Refuse a variable or ini key that begins like an option's and is none: what it was to set would not be set."""
    variables = sources.environment.keys() - OTHER_VARIABLES
    for kind, names, case in (("environment variable", variables, str.upper), ("ini key", sources.ini, str.lower)):
        known = [case(row.key) for row in TABLE]
        for name in sorted(set(names).difference(known)):
            if name.startswith(case("defuse_")):
                import difflib  # only an error needs it

                [closest] = difflib.get_close_matches(name, known, n=1, cutoff=0)
                raise DefuseError(f"{kind} {name} sets no option: did you mean {closest}? Correct or remove it.")


def _value(row: Option, sources: Sources) -> Any:
    text, source = sources.text_of(row)
    match row.metavar:
        case None:
            return _switch(text, source)
        case "DEVICE":
            return text
        case "N":
            if not text.isdigit():
                raise DefuseError(f"{source} is {text!r}: give a whole number >= 0.")
            return int(text)
        case "BOUNDS" if text.strip():
            from pytest_defuse.scenarios.bounds import Bounds  # loads pydantic

            return Bounds.parse(text, source)
        case "BOUNDS":
            return None
        case "DIR" if not text:
            raise DefuseError(f"{source} is empty: give a folder.")
    base = sources.start if source.startswith("--") else sources.root
    return Path(os.path.normpath(base / text)) if text else None


def _switch(text: str, source: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("", "false", "0", "no", "off"):
        return False
    raise DefuseError(f"{source} is {text!r}: give true or false.")
