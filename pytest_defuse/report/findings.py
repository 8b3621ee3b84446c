"""Scenarios that do not pass, as code review shows them: at the line of the label in their scenario.yaml."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_defuse.gate.checks import WORST_FIRST, Outcome
from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.gate.sentences import errors
from pytest_defuse.report.results import Results
from pytest_defuse.report.words import accuracy_text, bound_of, counted, outcome_text, relative
from pytest_defuse.runtime.escaping import visible

GITHUB_LEVELS: dict[Outcome, str] = {"FAIL": "error", "INCONCLUSIVE": "warning"}
GITLAB_SEVERITIES: dict[Outcome, str] = {"FAIL": "major", "INCONCLUSIVE": "info"}


@dataclass(frozen=True)
class Finding:
    """A scenario that does not pass.

    Attributes:
        scenario: subject and id, ``digits/3-as-5-a1b2c3``.
        path: of the scenario.yaml, from the repository's root, with forward slashes.
        line: of its label, counted from 1.
    """

    scenario: str
    outcome: Outcome
    path: str
    line: int
    title: str
    message: str


def repository_root() -> Path:
    """The repository's root: the CI service's, else the parent folder that contains ``.git``, else this folder."""
    for variable in ("GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        if os.environ.get(variable):
            return Path(os.environ[variable])
    current = Path.cwd()
    return next((folder for folder in (current, *current.parents) if (folder / ".git").exists()), current)


def findings(results: Results, root: Path) -> list[Finding]:
    """The scenarios that do not pass, worst first; paths are relative to ``root``, the repository's."""
    scenarios = [scenario for scenario in results.scenarios if scenario.outcome != "PASS"]
    return [_finding(scenario, root) for scenario in sorted(scenarios, key=lambda s: WORST_FIRST.index(s.outcome))]


def render_github(found: Iterable[Finding]) -> str:
    """Workflow commands that GitHub Actions turns into annotations, one per line."""
    return "".join(
        f"::{GITHUB_LEVELS[finding.outcome]} file={_property(finding.path)},line={finding.line},"
        f"title={_property(finding.title)}::{_escaped(finding.message)}\n"
        for finding in found
    )


def render_gitlab(found: Sequence[Finding]) -> str:
    """GitLab's code quality report (the subset of Code Climate's format that GitLab reads)."""
    issues = [
        {
            "description": f"{finding.title}: {finding.message}",
            "check_name": f"defuse-{finding.outcome.lower()}",
            # It identifies the problem across runs, so it contains neither figures nor lines.
            "fingerprint": hashlib.sha256(f"{finding.outcome} {finding.scenario}".encode()).hexdigest(),
            "severity": GITLAB_SEVERITIES[finding.outcome],
            "location": {"path": finding.path, "lines": {"begin": finding.line}},
        }
        for finding in found
    ]
    return json.dumps(issues, indent=1) + "\n"


def _finding(scenario: ScenarioResult, root: Path) -> Finding:
    path = Path(scenario.folder) / "scenario.yaml"
    lost = scenario.comparison.lost if scenario.comparison else []
    accuracy = f"label {scenario.label}: accuracy {accuracy_text(scenario.accuracy)}"
    bound = f"bound {bound_of(scenario)} ({scenario.reason})"
    flips = [f"{counted(len(lost), 'flip')} from the baseline"] if lost else []
    return Finding(
        scenario=visible(f"{scenario.subject}/{scenario.id}"),
        outcome=scenario.outcome,
        path=visible(Path(relative(path, root)).as_posix()),
        line=_label_line(path),
        title=visible(f"{scenario.id} {outcome_text(scenario)}"),
        message=visible("; ".join([f"{accuracy}, {bound}", *errors(scenario.predictions), *flips]), lines=True),
    )


def _label_line(path: Path) -> int:
    """The line of the label; the first line if the file cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # not UTF-8, or a path that no file can have
        return 1
    return next((number for number, line in enumerate(lines, start=1) if line.startswith("label:")), 1)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
