"""Results travel as JSON without a loss."""

import json
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
from pytest_defuse.report.results import Results, decode, encode

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
    adjusted_p=st.none() | SHARES,
)
COMPARISONS = st.none() | st.builds(Comparison, p=SHARES, adjusted_p=SHARES)
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
