"""Which accepted scenarios a run judged, and what follows for those that it did not. It fails closed."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import pytest

MAX_NAMED = 5
"""Scenarios that a sentence names, so that it has one or two lines. Our choice."""
PARTIAL_OPTIONS = ("keyword", "markexpr", "deselect", "lf", "ignore", "ignore_glob", "stepwise")
"""Options of pytest with which a run leaves out tests."""


class Coverage(NamedTuple):
    """The scenarios of one run, by key: ``subject/id``.

    Attributes:
        accepted: in the store.
        collected: tested by an item that was collected, also if it was deselected.
        selected: tested by an item that was not deselected.
        ran: tested by an item that ran with the scenario's subject, whatever its outcome.
        foreign: tested by an item that ran with another subject.
        results: with a verdict.
        subjects: names of the subjects of the run's tests.
        full: whether the run was to execute all tests of the project.
        complete: whether it was not stopped before its end.
        strict: whether a scenario whose test was skipped fails the run.
    """

    accepted: Collection[str] = ()
    collected: Collection[str] = ()
    selected: Collection[str] = ()
    ran: Collection[str] = ()
    foreign: Collection[str] = ()
    results: Collection[str] = ()
    subjects: Collection[str] = ()
    full: bool = False
    complete: bool = True
    strict: bool = False


class Decision(NamedTuple):
    """Sentences about scenarios without a verdict: ``problems`` fail the run, ``notices`` do not."""

    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def decide(coverage: Coverage) -> Decision:
    """Decide what the scenarios without a verdict mean for the run; what was required and is not judged is no pass.

    A test that a person skipped or deselected with an option is pytest's to report. Three cases fail the run: a
    scenario of no subject, a selected test that did not run, and an accepted scenario that no test covers in a run of
    all tests.
    """
    if not coverage.complete:
        return Decision()
    groups: dict[str, list[str]] = {"foreign": [], "lost": [], "skipped": [], "removed": [], "uncovered": []}
    for key in sorted({*coverage.accepted, *coverage.foreign}):
        if status := _status(key, coverage):
            groups[status].append(key)
    problems: list[str] = []
    notices: list[str] = []
    if keys := groups["foreign"]:
        owners, subjects = ({*(key.partition("/")[0] for key in keys)}, coverage.subjects)
        problems.append(
            f"{_named(keys)} not judged: the store has them under {_listed(owners)}, and this run tests the model of "
            f"{_listed(subjects)}; rename the folder in the store with the subject, or name each test's scenarios with "
            "only="
        )
    if keys := groups["lost"]:
        problems.append(f"{_named(keys)} not judged: the tests were selected and did not run; run them again")
    if keys := groups["uncovered"]:
        if coverage.full:
            problems.append(
                f"no test covers {_named(keys)}: use defuse_scenario in a test, without only=, or reject them"
            )
        else:
            notices.append(f"{_named(keys)} not judged: no selected test covers them")
    if keys := groups["skipped"]:
        sentences = problems if coverage.strict else notices
        sentences.append(f"{_named(keys)} not judged: the tests were skipped, or failed before they could")
    if keys := groups["removed"]:
        notices.append(f"{_named(keys)} not judged: a plugin, a conftest.py or addopts deselected the tests")
    return Decision(tuple(problems), tuple(notices))


def is_full(config: pytest.Config) -> bool:
    """Whether a run collects all tests: no option of pytest leaves out any, and its paths contain all testpaths.

    The options and paths in the ini file's ``addopts`` say what all tests of the project are.
    """
    project = config._parser.parse_known_args(config.getini("addopts"))
    for name in PARTIAL_OPTIONS:
        value = config.getoption(name, None)
        if value and value != getattr(project, name, None):
            return False
    if any("::" in name for name in config.args):
        return False
    if config.args_source == pytest.Config.ArgsSource.TESTPATHS:
        return True
    root, start = config.rootpath, config.invocation_params.dir
    testpaths = [root / path for path in config.getini("testpaths")]
    required = [start / path for path in project.file_or_dir] or testpaths or [root]
    given = [(start / path).resolve() for path in config.args]
    return all(any(path.resolve().is_relative_to(folder) for folder in given) for path in required)


def _status(key: str, coverage: Coverage) -> str:
    """Why a scenario has no verdict; empty if it has one, or if a person left its test out."""
    if key in coverage.results:
        return ""
    if key in coverage.ran:
        return "skipped"
    if key in coverage.foreign:
        return "uncovered" if key.partition("/")[0] in coverage.subjects else "foreign"
    if key in coverage.selected:
        return "lost"
    if key in coverage.collected:
        return "removed" if coverage.full else ""
    return "uncovered"


def _named(keys: Sequence[str]) -> str:
    more = len(keys) - MAX_NAMED
    names = ", ".join(key.partition("/")[2] for key in keys[:MAX_NAMED])
    return names + (f" and {more} more" if more > 0 else "")


def _listed(names: Collection[str]) -> str:
    return " and ".join(map(repr, sorted(names))) or "no subject"
