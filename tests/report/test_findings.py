"""Scenarios that do not pass, as GitHub and GitLab show them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.report.findings import findings, render_github, render_gitlab, repository_root
from pytest_defuse.report.results import Results
from tests.report.conftest import check

YAML = 'format: 1\nid: "3-as-5-a1b2c3"\nstatus: "accepted"\nlabel: "3"\n'


@pytest.fixture
def failing(scenario: Callable[..., ScenarioResult], store: Path) -> Results:
    """A scenario that fails, with a file; an inconclusive one without a file; and one that passes."""
    folder = store / "3-as-5-a1b2c3"
    folder.mkdir(parents=True)
    (folder / "scenario.yaml").write_text(YAML)
    return Results(
        scenarios=[
            scenario("7-as-1-000000", outcome="INCONCLUSIVE"),
            scenario("8-as-9-000000"),
            scenario(correct=100, checks=(check("FAIL", reason="100% of it, or:\nnothing"),)),
        ]
    )


def test_an_annotation_is_at_the_label(failing: Results, tmp_path: Path) -> None:
    first, second = render_github(findings(failing, tmp_path)).splitlines()
    assert first == (
        "::error file=fixtures/digits/3-as-5-a1b2c3/scenario.yaml,line=4,title=3-as-5-a1b2c3 FAIL"
        "::label 3: accuracy 100/256 = 39.1%25 (95%25 interval 33.3%25 - 45.2%25), "
        "bound 90.0%25 (100%25 of it, or:%0Anothing); misclassified as '5' (156)"
    )
    assert second.startswith(
        "::warning file=fixtures/digits/7-as-1-000000/scenario.yaml,line=1,title=7-as-1-000000 INCONCLUSIVE"
    )


def test_a_property_of_an_annotation_cannot_end_it(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    awkward = scenario(folder=str(tmp_path / "a,b::c"), correct=1)
    assert render_github(findings(Results(scenarios=[awkward]), tmp_path)).startswith("::error file=a%2Cb%3A%3Ac/")


def test_a_code_quality_report_has_what_gitlab_asks_for(failing: Results, tmp_path: Path) -> None:
    issues = json.loads(render_gitlab(findings(failing, tmp_path)))
    assert [issue["severity"] for issue in issues] == ["major", "info"]
    assert issues[0]["location"] == {"path": "fixtures/digits/3-as-5-a1b2c3/scenario.yaml", "lines": {"begin": 4}}
    assert issues[0]["description"].startswith("3-as-5-a1b2c3 FAIL: label 3: accuracy 100/256")
    assert len({issue["fingerprint"] for issue in issues}) == 2


def test_a_fingerprint_stays_while_the_problem_does(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    prints = {
        json.loads(render_gitlab(findings(Results(scenarios=[scenario(correct=count)]), tmp_path)))[0]["fingerprint"]
        for count in (100, 120)
    }
    assert len(prints) == 1


def test_a_scenario_that_passes_is_no_finding(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    found = findings(Results(scenarios=[scenario()]), tmp_path)
    assert (render_github(found), json.loads(render_gitlab(found))) == ("", [])


def test_the_repository_is_where_the_service_or_git_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path / "models")
    assert repository_root() == tmp_path
    monkeypatch.setenv("GITHUB_WORKSPACE", "/elsewhere")
    assert repository_root() == Path("/elsewhere")
