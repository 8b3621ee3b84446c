import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.accuracy import Accuracy
from pytest_defuse.gate.bounds import Bounds, judge

shares = st.floats(0, 1)


def outcome(
    correct: int, bounds: Bounds, total: int = 100, recorded: float = 0.0, baseline: float | None = None
) -> str:
    return judge(
        Accuracy(correct, total, bounds.confidence or 0.95), bounds, recorded=recorded, baseline=baseline
    ).outcome


@pytest.mark.parametrize(
    ("bounds", "recorded", "baseline", "bound", "reason"),
    [
        (Bounds(), 0.4, None, 0.4, "no regression from discovery"),
        (Bounds(), 0.4, 0.9, 0.4, "no regression from discovery"),
        (Bounds(min_accuracy=0.9), 0.4, None, 0.9, "min_accuracy"),
        (Bounds(min_accuracy=0.3), 0.4, None, 0.3, "min_accuracy"),
        (Bounds(max_drop=0.1), 0.4, 0.8, 0.7, "baseline 80.0% less max_drop"),
        (Bounds(max_drop=0.5), 0.4, 0.2, 0.0, "baseline 20.0% less max_drop"),
        (Bounds(max_drop=0.1), 0.4, None, 0.0, "max_drop, without a baseline yet"),
        (Bounds(min_accuracy=0.6, max_drop=0.1), 0.4, 0.8, 0.7, "baseline 80.0% less max_drop"),
        (Bounds(min_accuracy=0.9, max_drop=0.1), 0.4, 0.8, 0.9, "min_accuracy"),
        (Bounds(min_accuracy=0.9, max_drop=0.1), 0.4, None, 0.9, "min_accuracy"),
        (Bounds(max_shift_drop=0.1), 0.4, 0.9, 0.4, "no regression from discovery"),
    ],
)
def test_the_strictest_bound_decides(
    bounds: Bounds, recorded: float, baseline: float | None, bound: float, reason: str
) -> None:
    verdict = judge(Accuracy(50, 100), bounds, recorded=recorded, baseline=baseline)
    assert verdict.bound == pytest.approx(bound)
    assert verdict.reason == reason
    assert verdict.outcome == ("holds" if bound <= 0.5 else "fails")


def test_a_bound_that_is_just_reached_holds() -> None:
    assert outcome(90, Bounds(min_accuracy=0.9)) == "holds"
    assert outcome(89, Bounds(min_accuracy=0.9)) == "fails"
    assert outcome(1, Bounds(min_accuracy=1.0), total=1) == "holds"


def test_with_confidence_only_a_clear_miss_fails() -> None:
    asked = Bounds(min_accuracy=0.9, confidence=0.95)
    assert outcome(80, asked) == "fails"
    assert outcome(85, asked) == "unsure"
    assert outcome(95, asked) == "unsure"
    assert outcome(98, asked) == "holds"
    assert outcome(8, asked, total=10) == "unsure"


def test_more_confidence_leaves_more_unsure() -> None:
    assert outcome(83, Bounds(min_accuracy=0.9, confidence=0.9)) == "fails"
    assert outcome(83, Bounds(min_accuracy=0.9, confidence=0.999)) == "unsure"


def test_confidence_alone_asks_for_no_regression() -> None:
    asked = Bounds(confidence=0.95)
    assert [outcome(correct, asked, recorded=0.5) for correct in (30, 50, 70)] == ["fails", "unsure", "holds"]


@pytest.mark.parametrize("confidence", [None, 0.95])
def test_no_images_tell_nothing(confidence: float | None) -> None:
    assert outcome(0, Bounds(min_accuracy=0.9, confidence=confidence), total=0) == "unsure"


@given(correct=st.integers(0, 50), least=shares, drop=shares, recorded=shares, baseline=shares, confidence=shares)
def test_a_better_model_never_fares_worse(
    correct: int, least: float, drop: float, recorded: float, baseline: float, confidence: float
) -> None:
    rank = ["fails", "unsure", "holds"]
    for bounds in (
        Bounds(min_accuracy=least),
        Bounds(max_drop=drop),
        Bounds(min_accuracy=least, max_drop=drop, confidence=0.01 + 0.98 * confidence),
    ):
        better, worse = (outcome(right, bounds, 51, recorded, baseline) for right in (correct + 1, correct))
        assert rank.index(better) >= rank.index(worse)


def test_bounds_are_made_from_a_markers_keywords() -> None:
    assert Bounds.of({}) == Bounds()
    given = {"min_accuracy": 0.9, "max_drop": 0, "max_shift_drop": 1, "confidence": 0.99}
    assert Bounds.of(given) == Bounds(0.9, 0, 1, 0.99)


@pytest.mark.parametrize("only", ["3", ["3"], ("3",), {"3"}])
def test_only_takes_one_name_or_several(only: Any) -> None:
    assert Bounds.of({"only": only}).only == ("3",)


def test_a_name_that_is_no_bound_is_answered_with_those_that_are() -> None:
    with pytest.raises(DefuseError) as caught:
        Bounds.of({"min_acuracy": 0.9})
    assert str(caught.value) == (
        "the defuse marker has no bound 'min_acuracy': it has min_accuracy, max_drop, max_shift_drop, confidence, only."
    )


@pytest.mark.parametrize("name", ["min_accuracy", "max_drop", "max_shift_drop", "confidence"])
@pytest.mark.parametrize("value", [-0.1, 1.01, 90, float("nan"), float("inf"), "0.9", None, True, [0.9]])
def test_a_value_that_is_no_share_is_refused(name: str, value: Any) -> None:
    with pytest.raises(DefuseError, match=re.escape(f"defuse({name}={value!r}): give a share from 0 to 1")):
        Bounds.of({name: value})


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0])
def test_nothing_is_certain(value: float) -> None:
    with pytest.raises(DefuseError, match=re.escape(f"defuse(confidence={value!r}): give a share between 0 and 1")):
        Bounds.of({"confidence": value})
    assert Bounds.of({"min_accuracy": value}).min_accuracy == value


@pytest.mark.parametrize("only", [3, None, 0.5])
def test_only_refuses_what_is_no_name(only: Any) -> None:
    with pytest.raises(DefuseError, match=re.escape(f"defuse(only={only!r}): give ids or labels")):
        Bounds.of({"only": only})
