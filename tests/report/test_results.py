"""Results travel as JSON without a loss."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.correct.results import CorrectionResult, TrialResult
from pytest_defuse.discover.results import CandidateResult, DiscoveryResult, LatentMapResult, NoveltyResult
from pytest_defuse.explain.results import ExplanationResult, FailureModeResult, NodeResult, TreeResult
from pytest_defuse.gate.checks import Check, Comparison
from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.gate.results import OverallResult, ScenarioResult, TestSetResult
from pytest_defuse.report.findings import findings, render_gitlab
from pytest_defuse.report.html import render_html
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results import Results, decode, encode
from pytest_defuse.report.results_file import dump_results, load_results
from pytest_defuse.report.terminal import render
from pytest_defuse.report.words import headline, worst_outcome
from tests.report.conftest import check

SHARES = st.floats(0, 1)
COUNTS = st.integers(0, 10_000)
SECONDS = st.floats(0, 1e6)
TRIALS = st.builds(
    TrialResult, lambda_=st.floats(0, 10), validation=SHARES, worst_scenario=SHARES, mean_scenario=SHARES
)
NOVELTIES = st.builds(NoveltyResult, distances=st.lists(SHARES, max_size=3))
CANDIDATES = st.builds(
    CandidateResult,
    predicted=st.dictionaries(st.text(), COUNTS),
    failed=COUNTS,
    drawn=COUNTS,
    novelty=st.none() | NOVELTIES,
)
POINTS = st.lists(st.tuples(COUNTS, COUNTS), max_size=3)
MAPS = st.builds(LatentMapResult, projections=st.dictionaries(st.text(), POINTS, max_size=2))
CHECKS = st.builds(
    Check,
    measured=SHARES,
    limit=SHARES,
    accuracy=SHARES,
    confidence=SHARES,
    interval=st.tuples(SHARES, SHARES),
    p=SHARES,
)
COMPARISONS = st.none() | st.builds(Comparison, p=SHARES)
PREDICTIONS = st.builds(
    LabelledPredictions,
    confidences=st.lists(SHARES, max_size=3).map(tuple),
    recorded=st.none() | SHARES,
    base_error_rate=st.none() | SHARES,
)
VERDICT: dict[str, st.SearchStrategy[Any]] = {
    "predictions": PREDICTIONS,
    "confidence": SHARES,
    "checks": st.lists(CHECKS, max_size=2).map(tuple),
    "comparison": COMPARISONS,
    "correct_before": st.none() | COUNTS,
}
RATES = dict.fromkeys(("error_rate", "base_error_rate", "error_coverage"), SHARES) | {
    "interval": st.tuples(SHARES, SHARES)
}
LEAVES = st.builds(NodeResult, children=st.just([]))
NODES = st.builds(NodeResult, children=st.lists(LEAVES, max_size=2))
TREES = st.builds(TreeResult, root=NODES, base_error_rate=SHARES, aler=SHARES, aler_interval=st.tuples(SHARES, SHARES))
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "scenario": st.builds(ScenarioResult, **VERDICT),
    "test set": st.builds(TestSetResult, flip_sheet=st.text(), **VERDICT),
    "overall": st.builds(OverallResult, **VERDICT),
    "discovery": st.builds(
        DiscoveryResult,
        accuracy=SHARES,
        reconstruction_accuracy=SHARES,
        judge_accuracies=st.lists(SHARES, max_size=3),
        new=st.lists(CANDIDATES, max_size=3),
        seconds=SECONDS,
        latent_map=st.none() | MAPS,
    ),
    "correction": st.builds(
        CorrectionResult,
        before=TRIALS,
        trials=st.lists(TRIALS, max_size=3),
        notes=st.lists(st.text(), max_size=2),
        seconds=SECONDS,
    ),
    "explanation": st.builds(
        ExplanationResult,
        modes=st.lists(st.builds(FailureModeResult, **RATES), max_size=2),
        trees=st.lists(TREES, max_size=2),
        new=st.lists(CANDIDATES, max_size=1),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_every_kind_survives_json(kind: str, data: st.DataObject) -> None:
    result = data.draw(KINDS[kind])
    assert decode(json.loads(json.dumps(encode(result)))) == result


def test_results_are_grouped_in_the_order_in_which_they_arrive(everything: Results) -> None:
    items = [encode(result) for result in everything]
    assert Results.of(reversed(items)).scenarios == everything.scenarios[::-1]
    assert Results.of(items) == everything


def test_equal_results_of_two_tests_are_one(tested: TestSetResult) -> None:
    assert Results.of([encode(tested), encode(tested)]).test_sets == [tested]


def test_no_results_are_false(tested: TestSetResult) -> None:
    assert not Results()
    assert Results(test_sets=[tested])


class TestSeveralTestsOfOneScenario:
    """The verdict on a scenario is the worst of all tests that gate it; reports count scenarios, not tests."""

    @pytest.fixture
    def gated(self, scenario: Callable[..., ScenarioResult]) -> Results:
        loose, strict = check("PASS", limit=0.5, accuracy=0.5), check("FAIL", limit=0.95, accuracy=0.95)
        results = [
            scenario(checks=(loose,)),
            scenario(checks=(strict,)),
            scenario(checks=(check("INCONCLUSIVE"),)),
            scenario("7-as-1-000000"),
        ]
        return Results.of(json.loads(json.dumps([encode(result) for result in results])))

    def test_the_worst_verdict_stays_with_every_bound(self, gated: Results) -> None:
        worst, other = gated.scenarios
        assert (worst.id, worst.outcome, worst.bound) == ("3-as-5-a1b2c3", "FAIL", 0.95)
        assert [part.outcome for part in worst.checks] == ["PASS", "FAIL", "INCONCLUSIVE"]
        assert other.outcome == "PASS"

    def test_in_any_order_of_the_tests(self, gated: Results, scenario: Callable[..., ScenarioResult]) -> None:
        parts = [replace(gated.scenarios[0], checks=(part,)) for part in gated.scenarios[0].checks]
        for order in itertools.permutations(parts):
            assert [verdict.outcome for verdict in Results.of(map(encode, order)).scenarios] == ["FAIL"]

    def test_every_report_shows_it_once(self, gated: Results, tmp_path: Path) -> None:
        assert headline(gated) == "digits: 2 scenarios (1 FAIL, 1 PASS)"
        table = render_markdown(gated).partition("\n\n- ")[0]
        assert table.count("3-as-5-a1b2c3 |") == 1
        page = render_html(gated)
        assert page.count('<details class="card" id="3-as-5-a1b2c3" open>') == 1
        assert '<span class="badge FAIL">FAIL</span>' in page
        terminal = render(gated, width=200, color=False, start=tmp_path)
        assert re.findall(r"^3-as-5-a1b2c3  .*(PASS|FAIL|INCONCLUSIVE) *$", terminal, re.MULTILINE) == ["FAIL"]
        assert [issue["check_name"] for issue in json.loads(render_gitlab(findings(gated, tmp_path)))] == [
            "defuse-fail"
        ]
        saved = json.loads(dump_results(gated, tmp_path))
        assert [values["outcome"] for values in saved["scenarios"]] == ["FAIL", "PASS"]

    def test_a_file_of_an_older_version_is_merged_too(self, gated: Results, tmp_path: Path) -> None:
        parts = [replace(gated.scenarios[0], checks=(part,)) for part in gated.scenarios[0].checks]
        path = tmp_path / "results.json"
        path.write_text(dump_results(Results(scenarios=parts), tmp_path))
        assert [verdict.outcome for verdict in load_results(path, tmp_path).scenarios] == ["FAIL"]

    def test_one_id_in_two_subjects_is_two_scenarios(self, scenario: Callable[..., ScenarioResult]) -> None:
        results = Results.of(map(encode, [scenario(), scenario(subject="letters", correct=3)]))
        assert headline(results) == "digits, letters: 2 scenarios (1 FAIL, 1 PASS)"
        assert render_html(results).count('<details class="card" id="3-as-5-a1b2c3"') == 2

    def test_test_sets_and_all_scenarios_together_are_merged_alike(self, tested: TestSetResult) -> None:
        bounds = [check("PASS"), check("FAIL", limit=0.99)]
        results = Results.of(encode(replace(tested, checks=(bound,))) for bound in bounds)
        assert [verdict.outcome for verdict in results.test_sets] == ["FAIL"]
        whole = OverallResult(subject="digits", model="2", predictions=tested.predictions, scenarios=("a", "b"))
        overall = Results.of(map(encode, [whole, replace(whole, scenarios=("a",)), whole])).overall
        assert [verdict.scenarios for verdict in overall] == [("a", "b"), ("a",)]


class TestPartialResults:
    """An interrupted run says so everywhere, and is not green."""

    def test_every_report_says_it(self, scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
        complete = Results(scenarios=[scenario()])
        partial = replace(complete, partial="the run was interrupted")
        sentence = "artial results, tests are missing: the run was interrupted"
        for rendered in (render_markdown, render_html, lambda r: render(r, width=80, color=False, start=tmp_path)):
            assert sentence in rendered(partial)
            assert "artial" not in rendered(complete)
        assert headline(partial) == "digits: PARTIAL, 1 scenario (1 PASS)"
        assert headline(Results(partial="x")) == "pytest-defuse: PARTIAL, no results"
        assert (worst_outcome(complete), worst_outcome(partial)) == ("PASS", "INCONCLUSIVE")
        saved = dump_results(partial, tmp_path)
        assert json.loads(saved)["partial"] == "the run was interrupted"
        (tmp_path / "results.json").write_text(saved)
        assert load_results(tmp_path / "results.json", tmp_path) == partial
