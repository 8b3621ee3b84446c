"""Bounds evaluated on predictions: PASS, FAIL, and INCONCLUSIVE where the images are too few."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.gate.checks import Check, compare, evaluate
from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.gate.results import TestSetResult, Verdict
from pytest_defuse.gate.sentences import sentence
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.statistics.significance import mcnemar
from tests.examples import fewer_examples

shares = st.floats(0, 1)


def labelled(
    labels: Sequence[str], predicted: Sequence[str], baseline: Sequence[str | None] | None = None, **more: Any
) -> LabelledPredictions:
    return LabelledPredictions(
        sha256="1" * 64,
        predicted=tuple(predicted),
        confidences=(0.9,) * len(labels),
        labels=tuple(labels),
        baseline=(None,) * len(labels) if baseline is None else tuple(baseline),
        **more,
    )


def threes(
    correct: int, total: int = 100, before: int | None = None, recorded: float | None = None
) -> LabelledPredictions:
    """Images of "3", the first ones correct; the baseline has the last ones correct."""
    baseline = None if before is None else ["5"] * (total - before) + ["3"] * before
    return labelled(["3"] * total, ["3"] * correct + ["5"] * (total - correct), baseline, recorded=recorded)


def verdict(predictions: LabelledPredictions, first_run: bool = False, **bounds: float) -> Verdict:
    checks = evaluate(predictions, Bounds.of(bounds), first_run)
    return TestSetResult(subject="digits", model="2" * 64, predictions=predictions, checks=checks)


def outcome(predictions: LabelledPredictions, **bounds: float) -> str:
    return verdict(predictions, **bounds).outcome


@pytest.mark.parametrize(
    ("bounds", "before", "bound", "reason"),
    [
        ({}, None, 0.4, "no regression from discovery"),
        ({}, 90, 0.9, "no regression from the baseline"),
        ({"max_shift_drop": 0.1}, None, 0.4, "no regression from discovery"),
        ({"min_accuracy": 0.9}, None, 0.9, "min_accuracy"),
        ({"min_accuracy": 0.3}, None, 0.3, "min_accuracy"),
        ({"max_drop": 0.1}, 80, 0.7, "baseline 80.0% less max_drop"),
        ({"max_drop": 0.5}, 20, 0.0, "baseline 20.0% less max_drop"),
        ({"max_relative_drop": 0.25}, 80, 0.6, "baseline 80.0% less max_relative_drop"),
        ({"min_accuracy": 0.6, "max_drop": 0.1}, 80, 0.7, "baseline 80.0% less max_drop"),
        ({"min_accuracy": 0.9, "max_drop": 0.1}, 80, 0.9, "min_accuracy"),
    ],
)
def test_the_strictest_bound_decides(bounds: dict[str, float], before: int | None, bound: float, reason: str) -> None:
    decided = verdict(threes(50, before=before, recorded=0.4), **bounds)
    assert decided.bound == pytest.approx(bound)
    assert decided.reason == reason
    assert decided.outcome == ("PASS" if bound <= 0.5 else "FAIL")


@pytest.mark.parametrize(
    ("bounds", "bound", "reason"),
    [
        ({"max_error_rate": 0.2}, 0.8, "max_error_rate 20.0%"),
        ({"max_increase": 0.1}, 0.6, "base error rate 30.0% plus max_increase"),
        ({"max_increase": 0.1, "max_error_rate": 0.6}, 0.6, "base error rate 30.0% plus max_increase"),
        ({"max_increase": 0.9}, 0.0, "base error rate 30.0% plus max_increase"),
    ],
)
def test_error_rates_of_a_failure_mode_are_bounds(bounds: dict[str, float], bound: float, reason: str) -> None:
    for correct in (50, 70, 90):
        decided = verdict(replace(threes(correct), base_error_rate=0.3), **bounds)
        assert decided.bound == pytest.approx(bound)
        assert decided.reason == reason
        assert decided.outcome == ("PASS" if correct >= 100 * bound else "FAIL")
    assert Bounds.of(bounds).required_accuracy(0.3) == pytest.approx(bound)


def test_images_of_no_group_need_another_bound_than_max_increase() -> None:
    assert verdict(threes(10, recorded=0.2), max_increase=0.1, min_accuracy=0.1).reason == "min_accuracy"
    for images in (threes(90, recorded=0.2), threes(90, before=90)):
        with pytest.raises(DefuseError, match=r"max_increase needs the error rate of the group .*: set another bound"):
            verdict(images, max_increase=0.1)
    assert Bounds(max_increase=0.1).required_accuracy(None) is None


@pytest.mark.parametrize("bound", [{"max_drop": 0.1}, {"max_relative_drop": 0.1}, {"max_flips": 3}, {}])
def test_without_a_baseline_a_bound_that_needs_one_is_an_error_except_on_a_first_run(bound: dict[str, float]) -> None:
    name = next(iter(bound), "no_regression")
    problem = f"{name} needs a baseline: " if bound else "no accuracy was recorded to compare with: "
    with pytest.raises(DefuseError, match=f"{problem}.*--defuse-save-baseline.*--defuse-first-run"):
        verdict(threes(50), **bound)
    decided = verdict(threes(50), first_run=True, **bound)
    assert (decided.outcome, decided.reason) == ("PASS", f"{name} not evaluated: no baseline yet")
    with pytest.raises(DefuseError, match="needs a baseline"):
        verdict(threes(50), min_accuracy=0.1, max_drop=0.1)


def test_a_value_equal_to_its_bound_passes() -> None:
    assert outcome(threes(90), min_accuracy=0.9) == "PASS"
    assert outcome(threes(89), min_accuracy=0.9) == "FAIL"
    assert outcome(threes(1, 1), min_accuracy=1.0) == "PASS"
    assert outcome(threes(63, before=70), max_relative_drop=0.1) == "PASS"
    assert outcome(threes(62, before=70), max_relative_drop=0.1) == "FAIL"


def test_flips_are_images_that_only_the_baseline_classifies_correctly() -> None:
    images = threes(60, before=60)  # 20 both, 40 lost, 40 gained: the accuracy is the same
    [check] = verdict(images, max_flips=39).checks
    assert (check.measured, check.limit, check.outcome) == (40, 39, "FAIL")
    assert outcome(images, max_flips=40) == "PASS"
    assert outcome(images, max_drop=0.0) == "PASS"
    comparison = compare(images)
    assert comparison is not None
    assert comparison.lost == list(range(60, 100))
    assert comparison.gained == list(range(40))
    assert (comparison.total, comparison.correct) == (100, 60)
    assert comparison.p == mcnemar(40, 40) == 1


@pytest.mark.parametrize("bounds", [{"max_drop": 0.0}, {"max_relative_drop": 0.0}, {"max_flips": 0}, {}], ids=str)
def test_a_change_from_a_baseline_that_lacks_some_of_the_images_is_an_error(bounds: dict[str, float]) -> None:
    images = labelled(["3"] * 4, ["3", "3", "3", "5"], ["3", "3", "3", None], recorded=0.0)
    name = next(iter(bounds), "no_regression")
    with pytest.raises(DefuseError, match=f"{name} needs a baseline, which lacks 1 of 4 images: .* save a baseline"):
        verdict(images, **bounds)
    assert outcome(images, min_accuracy=0.5) == "PASS"


def test_images_that_the_baseline_does_not_contain_do_not_count_in_a_drop_of_a_first_run() -> None:
    images = labelled(["3"] * 4, ["3", "3", "5", "5"], ["3", None, "5", None])
    [check] = verdict(images, first_run=True, max_drop=0.0).checks
    assert (check.total, check.measured, check.outcome) == (2, 0.0, "PASS")
    assert compare(labelled(["3"], ["3"], [None])) is None


def test_with_confidence_only_a_clear_miss_fails() -> None:
    bounds = {"min_accuracy": 0.9, "confidence": 0.95}
    assert [outcome(threes(correct), **bounds) for correct in (80, 85, 95, 98)] == [
        "FAIL",
        "INCONCLUSIVE",
        "INCONCLUSIVE",
        "PASS",
    ]
    assert outcome(threes(8, 10), **bounds) == "INCONCLUSIVE"
    assert outcome(threes(83), min_accuracy=0.9, confidence=0.9) == "FAIL"
    assert outcome(threes(83), min_accuracy=0.9, confidence=0.999) == "INCONCLUSIVE"


def test_confidence_alone_requires_no_regression() -> None:
    assert [outcome(threes(n, recorded=0.5), confidence=0.95) for n in (30, 50, 70)] == ["FAIL", "INCONCLUSIVE", "PASS"]
    assert [outcome(threes(n, before=50), confidence=0.95) for n in (30, 50, 80)] == ["FAIL", "INCONCLUSIVE", "PASS"]


def test_with_confidence_drops_and_flips_are_tests_too() -> None:
    def lost(number: int) -> LabelledPredictions:
        return labelled(["3"] * 100, ["5"] * number + ["3"] * (100 - number), ["3"] * 100)

    assert [outcome(lost(n), max_drop=0.1, confidence=0.95) for n in (1, 12, 25)] == ["PASS", "INCONCLUSIVE", "FAIL"]
    assert [outcome(lost(n), max_flips=10, confidence=0.95) for n in (1, 12, 25)] == ["PASS", "INCONCLUSIVE", "FAIL"]
    [check] = verdict(lost(12), max_flips=10, confidence=0.95).checks
    low, high = check.interval
    assert 0 < low < 12 < high < 100


def test_the_same_model_has_not_dropped_however_few_the_images() -> None:
    images = labelled(["3"] * 5, ["3"] * 5, ["3"] * 5, same_model=True)
    assert outcome(images, max_drop=0.0, confidence=0.95) == "PASS"
    assert outcome(images, max_flips=0, confidence=0.95) == "PASS"
    assert outcome(images, confidence=0.95) == "PASS"


def test_the_same_model_with_other_predictions_is_tested() -> None:
    images = labelled(["3"] * 100, ["5"] * 40 + ["3"] * 60, ["3"] * 100, same_model=True)
    assert outcome(images, max_drop=0.1, confidence=0.95) == "FAIL"
    assert outcome(images, max_flips=10, confidence=0.95) == "FAIL"
    few = labelled(["3"] * 100, ["5"] * 12 + ["3"] * 88, ["3"] * 100, same_model=True)
    assert outcome(few, max_drop=0.1, confidence=0.95) == "INCONCLUSIVE"


def test_flips_are_named_with_their_interval() -> None:
    words = sentence(verdict(threes(88, before=100), max_flips=10, confidence=0.9))
    assert "12 of 100 flipped from correct to wrong (90% interval " in words


def test_the_three_most_frequent_errors_are_named() -> None:
    images = labelled(["3"] * 10, [*"5555", *"888", *"99", "1"])
    assert sentence(verdict(images, min_accuracy=0.5)).endswith("misclassified as '5' (4), '8' (3), '9' (2).")


def test_only_other_predictions_of_the_same_model_are_named_nondeterminism() -> None:
    for same in (False, True):
        images = labelled(["3"] * 4, ["5", "3", "3", "3"], ["3"] * 4, same_model=same)
        compared = replace(verdict(images, min_accuracy=0.5), comparison=compare(images))
        assert ("1 of 4 images: it is not deterministic" in sentence(compared)) == same


@pytest.mark.parametrize(
    ("correct", "total", "bounds"),
    [
        (2, 3, {"min_accuracy": 0.5}),  # 0 of 3 has p = 0.083
        (1, 3, {"min_accuracy": 0.5}),
        (2, 4, {"max_drop": 0.6}),  # all lost is a drop of 1.0, on four images
        (0, 4, {"max_flips": 3}),
    ],
)
def test_where_no_outcome_could_fail_the_observed_value_decides(
    correct: int, total: int, bounds: dict[str, float]
) -> None:
    images = threes(correct, total, before=total)
    for confidence in (0.95, 0.999):
        [check] = verdict(images, **bounds, confidence=confidence).checks
        assert check.outcome == outcome(images, **bounds)
        assert check.reason.endswith(
            "; no outcome of so few images would be significant, so the observed value decides"
        )
        assert check.p is None
    assert outcome(threes(correct, 50 * total, before=50 * total), **bounds, confidence=0.95) == "FAIL"


def test_how_many_images_would_decide() -> None:
    [check] = verdict(threes(85), min_accuracy=0.9, confidence=0.95).checks
    assert check.images_needed is not None
    assert check.images_needed > 100
    more = threes(round(0.85 * check.images_needed), check.images_needed)
    assert outcome(more, min_accuracy=0.9, confidence=0.95) == "FAIL"
    [at_the_bound] = verdict(threes(90), min_accuracy=0.9, confidence=0.95).checks
    assert (at_the_bound.outcome, at_the_bound.images_needed) == ("INCONCLUSIVE", None)


@pytest.mark.parametrize("confidence", [{}, {"confidence": 0.95}])
def test_no_images_are_inconclusive(confidence: dict[str, float]) -> None:
    assert outcome(threes(0, 0), min_accuracy=0.9, **confidence) == "INCONCLUSIVE"


def test_per_class_evaluates_the_bounds_on_each_class() -> None:
    labels = ["3"] * 90 + ["8"] * 10
    images = labelled(labels, ["3"] * 95 + ["8"] * 5, labels)
    decided = verdict(images, min_accuracy=0.9, max_flips=5, per_class=True)
    outcomes = {(check.group, check.bound): check.outcome for check in decided.checks}
    assert outcomes == {
        ("", "min_accuracy"): "PASS",
        ("", "max_flips"): "PASS",
        ("3", "min_accuracy"): "PASS",
        ("3", "max_flips"): "PASS",
        ("8", "min_accuracy"): "FAIL",
        ("8", "max_flips"): "PASS",
    }
    assert decided.outcome == "FAIL"
    assert decided.decisive is not None
    assert (decided.decisive.group, decided.decisive.total) == ("8", 10)


def test_per_class_without_bounds_needs_an_accuracy_of_each_class() -> None:
    [whole, of_class] = verdict(threes(50, recorded=0.6), per_class=True).checks
    assert replace(of_class, group="") == whole
    assert (whole.outcome, whole.limit) == ("FAIL", 0.6)
    images = labelled(["3", "8"], ["3", "3"], recorded=0.5)
    with pytest.raises(DefuseError, match="no accuracy was recorded for class '3' to compare with: set a bound"):
        verdict(images, per_class=True)
    assert outcome(replace(images, baseline=("3", "8")), per_class=True) == "FAIL"


@pytest.mark.parametrize("bounds", [{"min_accuracy": 0.9}, {"max_drop": 0.0}, {"max_flips": 0}, {}], ids=str)
def test_per_class_is_inconclusive_on_a_class_without_images(bounds: dict[str, float]) -> None:
    images = threes(100, before=100)
    requested = Bounds.of({**bounds, "per_class": True})
    checks = evaluate(images, requested, classes=("3", "8"))
    assert [(check.group, check.outcome) for check in checks] == [("", "PASS"), ("3", "PASS"), ("8", "INCONCLUSIVE")]
    decided = TestSetResult(subject="digits", model="2" * 64, predictions=images, checks=checks)
    assert decided.outcome == "INCONCLUSIVE"
    assert "; class '8': per_class cannot be judged: INCONCLUSIVE, there are no images" in sentence(decided)


@fewer_examples(40)
@given(correct=st.integers(0, 50), minimum=shares, drop=shares, recorded=shares, confidence=shares)
def test_a_better_model_never_gets_a_worse_outcome(
    correct: int, minimum: float, drop: float, recorded: float, confidence: float
) -> None:
    bounds = {"min_accuracy": minimum, "max_drop": drop} | ({"confidence": confidence} if 0 < confidence < 1 else {})
    order = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}
    for requested in (bounds, {"min_accuracy": minimum}, {}):
        worse, better = (threes(n, 51, 51, recorded) for n in (correct, correct + 1))
        assert order[outcome(worse, **requested)] <= order[outcome(better, **requested)]


@given(correct=st.integers(0, 40), before=st.integers(0, 40), limit=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_a_test_alone_fails_only_when_the_interval_excludes_its_limit(
    correct: int, before: int, limit: float, confidence: float
) -> None:
    for name in ("min_accuracy", "max_drop", "max_relative_drop"):
        [check] = verdict(threes(correct, 40, before), **{name: limit, "confidence": confidence}).checks
        low, high = check.interval
        if "the observed value decides" in check.reason:
            assert check.outcome == outcome(threes(correct, 40, before), **{name: limit})
        elif min(abs(low - check.limit), abs(high - check.limit)) > 1e-9 and 0 < limit < 1:
            inside = low <= check.limit <= high
            assert (check.outcome == "INCONCLUSIVE") == inside
            met = check.measured >= check.limit if name == "min_accuracy" else check.measured <= check.limit
            assert inside or (check.outcome == "PASS") == met


def test_a_check_is_plain_values() -> None:
    [check] = verdict(threes(50), min_accuracy=0.9).checks
    assert check == Check(
        bound="min_accuracy",
        group="",
        total=100,
        measured=0.5,
        limit=0.9,
        accuracy=0.9,
        confidence=0.95,
        interval=(pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4)),
        outcome="FAIL",
        reason="min_accuracy",
    )
