"""Scenarios that do not hold, as code review shows them: each at the line of its scenario.yaml that it is about."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.report.results import Results
from pytest_defuse.report.words import VERDICTS, WORST_FIRST, bound_of, counted, measured, relative, taken_for
from pytest_defuse.scenarios.bounds import Outcome

GITHUB_LEVELS: dict[Outcome, str] = {"fails": "error", "unsure": "warning"}
GITLAB_SEVERITIES: dict[Outcome, str] = {"fails": "major", "unsure": "info"}


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    Attributes:
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
    """The root of the repository as the CI service says it, or as git lays it out around this folder."""
    for variable in ("GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        if os.environ.get(variable):
            return Path(os.environ[variable])
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def findings(results: Results, root: Path) -> list[Finding]:
    """What does not hold, worst first; paths from ``root``, the repository's."""
    noted = [scenario for scenario in results.scenarios if scenario.outcome != "holds"]
    return [_finding(scenario, root) for scenario in sorted(noted, key=lambda s: WORST_FIRST.index(s.outcome))]


def render_github(found: Iterable[Finding]) -> str:
    """Workflow commands that GitHub Actions turns into annotations, a line each."""
    return "".join(
        f"::{GITHUB_LEVELS[f.outcome]} file={_property(f.path)},line={f.line},title={_property(f.title)}"
        f"::{_escaped(f.message)}\n"
        for f in found
    )


def render_gitlab(found: Sequence[Finding]) -> str:
    """GitLab's code quality report (the subset of Code Climate's format that GitLab reads)."""
    issues = [
        {
            "description": f"{f.title}: {f.message}",
            "check_name": f"defuse-{f.outcome}",
            # It names the problem across runs, so neither figures nor lines belong in it.
            "fingerprint": hashlib.sha256(f"{f.outcome} {f.scenario}".encode()).hexdigest(),
            "severity": GITLAB_SEVERITIES[f.outcome],
            "location": {"path": f.path, "lines": {"begin": f.line}},
        }
        for f in found
    ]
    return json.dumps(issues, indent=1, ensure_ascii=False) + "\n"


def _finding(scenario: ScenarioResult, root: Path) -> Finding:
    path = Path(scenario.folder) / "scenario.yaml"
    lost = scenario.comparison.lost if scenario.comparison else []
    return Finding(
        scenario=f"{scenario.subject}/{scenario.id}",
        outcome=scenario.outcome,
        path=Path(relative(path, root)).as_posix(),
        line=_label_line(path),
        title=f"{scenario.id} {VERDICTS[scenario.outcome]}",
        message=f"label {scenario.label}: accuracy {measured(scenario.accuracy)}, "
        f"bound {bound_of(scenario)} ({scenario.reason}){taken_for(scenario)}"
        + (f"; {counted(len(lost), 'flip')} against the baseline" if lost else ""),
    )


def _label_line(path: Path) -> int:
    """The line of the label that the model does not give; the first line where the file cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return 1
    return next((number for number, line in enumerate(lines, start=1) if line.startswith("label:")), 1)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
