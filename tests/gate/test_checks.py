"""Answers held against bounds: what holds, what fails, and what so few images cannot tell."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_defuse.gate.checks import Answers, Check, Verdict, adjust, compare, judge, settle
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.statistics.significance import mcnemar

shares = st.floats(0, 1)


def answers(correct: int, total: int = 100, before: int | None = None, recorded: float | None = None) -> Answers:
    """Images of "3", the first ones right; the baseline had the last ones right."""
    known: Sequence[str | None] = [None] * total if before is None else ["5"] * (total - before) + ["3"] * before
    return Answers(["3"] * total, ["3"] * correct + ["5"] * (total - correct), known, recorded=recorded)


def verdict(given: Answers, **bounds: float) -> Verdict:
    [only] = settle([judge(given, Bounds.of(bounds))])
    return only


def outcome(given: Answers, **bounds: float) -> str:
    return verdict(given, **bounds).outcome


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
        ({"max_drop": 0.1}, None, 0.0, "max_drop, without a baseline yet"),
        ({"max_flips": 3}, None, 0.0, "max_flips, without a baseline yet"),
        ({"min_accuracy": 0.6, "max_drop": 0.1}, 80, 0.7, "baseline 80.0% less max_drop"),
        ({"min_accuracy": 0.9, "max_drop": 0.1}, 80, 0.9, "min_accuracy"),
        ({"min_accuracy": 0.9, "max_drop": 0.1}, None, 0.9, "min_accuracy"),
    ],
)
def test_the_strictest_bound_decides(bounds: dict[str, float], before: int | None, bound: float, reason: str) -> None:
    said = verdict(answers(50, before=before, recorded=0.4), **bounds)
    assert said.bound == pytest.approx(bound)
    assert said.reason == reason
    assert said.outcome == ("holds" if bound <= 0.5 else "fails")


@pytest.mark.parametrize(
    ("bounds", "bound", "reason"),
    [
        ({"max_error_rate": 0.2}, 0.8, "max_error_rate 20.0%"),
        ({"max_increase": 0.1}, 0.6, "base error rate 30.0% plus max_increase"),
        ({"max_increase": 0.1, "max_error_rate": 0.6}, 0.6, "base error rate 30.0% plus max_increase"),
        ({"max_increase": 0.9}, 0.0, "base error rate 30.0% plus max_increase"),
    ],
)
def test_a_failure_mode_is_held_to_error_rates(bounds: dict[str, float], bound: float, reason: str) -> None:
    for correct in (50, 70, 90):
        said = verdict(replace(answers(correct), base_error_rate=0.3), **bounds)
        assert said.bound == pytest.approx(bound)
        assert said.reason == reason
        assert said.outcome == ("holds" if correct >= 100 * bound else "fails")
    assert Bounds.of(bounds).required_accuracy(0.3) == pytest.approx(bound)


def test_images_of_no_group_have_no_increase() -> None:
    said = verdict(answers(10), max_increase=0.1)
    assert (said.outcome, said.bound, said.reason) == ("holds", 0.0, "max_increase, without a group of its own")
    assert Bounds(max_increase=0.1).required_accuracy(None) == 0


def test_nothing_asked_and_nothing_recorded_holds() -> None:
    said = verdict(answers(50))
    assert (said.checks, said.outcome, said.bound, said.reason) == ((), "holds", 0.0, "")


def test_a_bound_that_is_just_reached_holds() -> None:
    assert outcome(answers(90), min_accuracy=0.9) == "holds"
    assert outcome(answers(89), min_accuracy=0.9) == "fails"
    assert outcome(answers(1, 1), min_accuracy=1.0) == "holds"
    assert outcome(answers(63, before=70), max_relative_drop=0.1) == "holds"
    assert outcome(answers(62, before=70), max_relative_drop=0.1) == "fails"


def test_flips_are_images_that_the_baseline_had_right() -> None:
    given = answers(60, before=60)  # 20 both, 40 lost, 40 gained: the accuracy is the same
    [check] = verdict(given, max_flips=39).checks
    assert (check.measured, check.limit, check.outcome) == (40, 39, "fails")
    assert outcome(given, max_flips=40) == "holds"
    assert outcome(given, max_drop=0.0) == "holds"
    comparison = compare(given)
    assert comparison is not None
    assert comparison.lost == list(range(60, 100))
    assert comparison.gained == list(range(40))
    assert (comparison.images, comparison.correct) == (100, 60)
    assert comparison.p == mcnemar(40, 40) == 1


def test_images_that_the_baseline_has_not_seen_play_no_part_in_a_drop() -> None:
    given = Answers(["3"] * 4, ["3", "3", "5", "5"], ["3", None, "5", None])
    [check] = verdict(given, max_drop=0.0).checks
    assert (check.images, check.measured, check.outcome) == (2, 0.0, "holds")
    assert compare(Answers(["3"], ["3"], [None])) is None


def test_with_confidence_only_a_clear_miss_fails() -> None:
    asked = {"min_accuracy": 0.9, "confidence": 0.95}
    assert [outcome(answers(correct), **asked) for correct in (80, 85, 95, 98)] == [
        "fails",
        "unsure",
        "unsure",
        "holds",
    ]
    assert outcome(answers(8, 10), **asked) == "unsure"
    assert outcome(answers(83), min_accuracy=0.9, confidence=0.9) == "fails"
    assert outcome(answers(83), min_accuracy=0.9, confidence=0.999) == "unsure"


def test_confidence_alone_asks_for_no_regression() -> None:
    assert [outcome(answers(n, recorded=0.5), confidence=0.95) for n in (30, 50, 70)] == ["fails", "unsure", "holds"]
    assert [outcome(answers(n, before=50), confidence=0.95) for n in (30, 50, 80)] == ["fails", "unsure", "holds"]


def test_with_confidence_drops_and_flips_are_tests_too() -> None:
    def lost(number: int) -> Answers:
        return Answers(["3"] * 100, ["5"] * number + ["3"] * (100 - number), ["3"] * 100)

    assert [outcome(lost(n), max_drop=0.1, confidence=0.95) for n in (1, 12, 25)] == ["holds", "unsure", "fails"]
    assert [outcome(lost(n), max_flips=10, confidence=0.95) for n in (1, 12, 25)] == ["holds", "unsure", "fails"]
    [check] = verdict(lost(12), max_flips=10, confidence=0.95).checks
    low, high = check.interval
    assert 0 < low < 12 < high < 100


def test_the_same_model_has_not_dropped_however_few_the_images() -> None:
    given = Answers(["3"] * 5, ["3"] * 5, ["3"] * 5, same_model=True)
    assert outcome(given, max_drop=0.0, confidence=0.95) == "holds"
    assert outcome(given, max_flips=0, confidence=0.95) == "holds"
    assert outcome(given, confidence=0.95) == "holds"


def test_how_many_images_would_do() -> None:
    few = answers(85)
    [check] = verdict(few, min_accuracy=0.9, confidence=0.95).checks
    assert check.enough is not None
    assert check.enough > 100
    more = answers(round(0.85 * check.enough), check.enough)
    assert outcome(more, min_accuracy=0.9, confidence=0.95) == "fails"
    [at_the_bound] = verdict(answers(90), min_accuracy=0.9, confidence=0.95).checks
    assert (at_the_bound.outcome, at_the_bound.enough) == ("unsure", None)


@pytest.mark.parametrize("confidence", [{}, {"confidence": 0.95}])
def test_no_images_tell_nothing(confidence: dict[str, float]) -> None:
    assert outcome(answers(0, 0), min_accuracy=0.9, **confidence) == "unsure"


def test_per_class_each_class_is_held_to_the_bounds() -> None:
    labels = ["3"] * 90 + ["8"] * 10
    given = Answers(labels, ["3"] * 95 + ["8"] * 5, labels)
    [verdict] = settle([judge(given, Bounds(min_accuracy=0.9, max_flips=5, per_class=True))])
    outcomes = {(check.group, check.bound): check.outcome for check in verdict.checks}
    assert outcomes == {
        ("", "min_accuracy"): "holds",
        ("", "max_flips"): "holds",
        ("3", "min_accuracy"): "holds",
        ("3", "max_flips"): "holds",
        ("8", "min_accuracy"): "fails",
        ("8", "max_flips"): "holds",
    }
    assert verdict.outcome == "fails"
    assert verdict.decisive is not None
    assert (verdict.decisive.group, verdict.decisive.images) == ("8", 10)


def test_among_many_judged_at_once_one_narrow_miss_may_be_chance() -> None:
    bounds = Bounds(min_accuracy=0.9, confidence=0.95)
    narrow, clear, fine = answers(82), answers(50), answers(97)
    assert outcome(narrow, min_accuracy=0.9, confidence=0.95) == "fails"
    family = [narrow, *[answers(90)] * 18, clear]
    first, *_, last = settle([judge(given, bounds) for given in family])
    assert (first.outcome, last.outcome) == ("unsure", "fails")
    [check] = first.checks
    assert check.p is not None
    assert check.adjusted_p is not None
    assert check.p < 0.05 < check.adjusted_p
    assert check.enough is not None
    assert check.enough > 100
    # Without confidence a bound is no test, and nothing else plays a part in it.
    family_without = settle([judge(given, Bounds(min_accuracy=0.9)) for given in family])
    assert family_without[0].outcome == "fails"
    assert outcome(fine, min_accuracy=0.9, confidence=0.95) == "holds"


def test_comparisons_made_at_once_are_adjusted() -> None:
    narrow = compare(Answers(["3"] * 20, ["5"] * 6 + ["3"] * 14, ["3"] * 20))
    same = compare(Answers(["3"] * 20, ["3"] * 20, ["3"] * 20))
    assert narrow is not None
    assert narrow.p == pytest.approx(2 / 2**6)
    [adjusted, none, *_] = adjust([narrow, None, same, same, same])
    assert adjusted is not None
    assert adjusted.adjusted_p == pytest.approx(4 * narrow.p)
    assert none is None


@settings(max_examples=40)
@given(correct=st.integers(0, 50), least=shares, drop=shares, recorded=shares, before=st.integers(0, 51), sure=shares)
def test_a_better_model_never_fares_worse(
    correct: int, least: float, drop: float, recorded: float, before: int, sure: float
) -> None:
    bounds = {"min_accuracy": least, "max_drop": drop} | ({"confidence": sure} if 0 < sure < 1 else {})
    order = {"fails": 0, "unsure": 1, "holds": 2}
    for some in (bounds, {"min_accuracy": least}, {}):
        worse, better = (answers(n, 51, 51, recorded) for n in (correct, correct + 1))
        assert order[outcome(worse, **some)] <= order[outcome(better, **some)]


@given(correct=st.integers(0, 40), before=st.integers(0, 40), limit=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_a_test_alone_fails_only_when_the_interval_excludes_its_limit(
    correct: int, before: int, limit: float, confidence: float
) -> None:
    for name in ("min_accuracy", "max_drop", "max_relative_drop"):
        [check] = verdict(answers(correct, 40, before), **{name: limit, "confidence": confidence}).checks
        low, high = check.interval
        if min(abs(low - check.limit), abs(high - check.limit)) > 1e-9 and 0 < limit < 1:
            inside = low <= check.limit <= high
            assert (check.outcome == "unsure") == inside
            met = check.measured >= check.limit if name == "min_accuracy" else check.measured <= check.limit
            assert inside or (check.outcome == "holds") == met


def test_a_check_is_plain_values() -> None:
    [check] = verdict(answers(50), min_accuracy=0.9).checks
    assert check == Check(
        bound="min_accuracy",
        group="",
        images=100,
        measured=0.5,
        limit=0.9,
        accuracy=0.9,
        confidence=0.95,
        interval=(pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4)),
        outcome="fails",
        reason="min_accuracy",
    )
