"""What a run leaves for CI services, however quiet it is."""

import json
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from pytest_defuse.report.results_file import load_results
from pytest_defuse.report.words import gate_command
from pytest_defuse.scenarios.store import Scenario

Accept = Callable[..., Scenario]


@pytest.mark.parametrize("workers", [(), pytest.param(("-n2",), marks=pytest.mark.slow)], ids=["plain", "n2"])
def test_a_quiet_run_in_a_service(
    project: pytest.Pytester, accept: Accept, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path))
    accept(mean=0.55)
    bad = accept(mean=0.45)
    (project.path / "taken").touch()
    result = project.runpytest(
        "-q",
        "--no-summary",
        "--defuse-seed=3",
        "--defuse-results=out/results.json",
        "--defuse-code-quality=out/quality.json",
        "--defuse-report=taken/report.html",
        "--junitxml=out/junit.xml",
        *workers,
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    annotation = f"::error file=fixtures/toy/{bad.id}/scenario.yaml,line=5,title={bad.id} FAIL::label bright: *"
    result.stdout.fnmatch_lines([annotation, "*report.html cannot be written (*"])
    result.stdout.no_fnmatch_line("*95% interval  bound*")
    results = load_results(project.path / "out" / "results.json", project.path)
    assert len(results.scenarios) == 2
    (issue,) = json.loads((project.path / "out" / "quality.json").read_text())
    assert issue["location"] == {"path": f"fixtures/toy/{bad.id}/scenario.yaml", "lines": {"begin": 5}}
    cases = ET.parse(project.path / "out" / "junit.xml").iter("testcase")
    properties = {case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")} for case in cases}
    assert properties[f"test_scenario[{bad.id}]"]["defuse_outcome"] == "FAIL"
    assert properties[f"test_scenario[{bad.id}]"]["defuse_accuracy"] == "0/16"

    if not workers:
        failing = next(scenario for scenario in results.scenarios if scenario.outcome == "FAIL")
        command = shlex.split(gate_command(failing, results.arguments))
        assert command[:2] == ["pytest", "--defuse-seed=3"]
        again = project.runpytest(*command[1:])
        again.assert_outcomes(failed=1, deselected=2)
