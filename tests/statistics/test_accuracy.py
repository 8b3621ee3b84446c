import copy
import json
import math
import pickle
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pytest_defuse.statistics.accuracy import Accuracy, balanced_accuracy, wilson_interval


@st.composite
def tallies(draw: st.DrawFn) -> tuple[int, int]:
    """Successes, of a total."""
    total = draw(st.integers(1, 10**6))
    return draw(st.integers(0, total) | st.sampled_from([0, total])), total


@given(tally=tallies(), confidence=st.floats(0.01, 0.9999))
def test_the_interval_is_wilsons(tally: tuple[int, int], confidence: float) -> None:
    expected = binomtest(*tally).proportion_ci(confidence, method="wilson")
    low, high = wilson_interval(*tally, confidence)
    assert low == pytest.approx(expected.low, rel=1e-6, abs=1e-9)
    assert high == pytest.approx(expected.high, rel=1e-6, abs=1e-9)


@given(tally=tallies(), confidence=st.floats(0.01, 0.999999))
def test_the_interval_holds_the_share_and_stays_in_range(tally: tuple[int, int], confidence: float) -> None:
    low, high = wilson_interval(*tally, confidence)
    assert 0 <= low <= tally[0] / tally[1] <= high <= 1


def test_the_interval_of_none_and_of_all() -> None:
    assert wilson_interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson_interval(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_images_and_less_confidence_narrow_the_interval() -> None:
    def width(*arguments: float) -> float:
        low, high = wilson_interval(*arguments)
        return high - low

    assert width(9, 10) > width(90, 100) > width(900, 1000)
    assert width(90, 100, 0.99) > width(90, 100, 0.95) > width(90, 100, 0.5)


def test_an_accuracy_compares_like_a_number() -> None:
    accuracy = Accuracy(9, 10)
    assert accuracy == 0.9
    assert accuracy == Accuracy(90, 100)
    assert accuracy != 0.91
    assert accuracy != "0.9"
    assert accuracy >= 0.9 >= accuracy
    assert accuracy <= 0.9 <= accuracy
    assert accuracy > 0.89
    assert accuracy < 0.91
    assert not accuracy > 0.9
    assert not accuracy < 0.9
    assert 0.8 < accuracy < 1
    assert accuracy < Accuracy(10, 10)
    assert float(accuracy) == accuracy.value == 0.9
    assert hash(accuracy) == hash(0.9)


def test_an_accuracy_works_wherever_a_float_does() -> None:
    accuracy = Accuracy(2, 3)
    assert isinstance(accuracy, float)
    assert accuracy == pytest.approx(0.6667, abs=1e-4)
    assert pytest.approx(accuracy) == 2 / 3
    assert round(accuracy, 2) == 0.67
    assert f"{accuracy:.1%} {accuracy:.2f}" == "66.7% 0.67"
    assert json.loads(json.dumps({"accuracy": accuracy})) == {"accuracy": 2 / 3}
    assert 1 - accuracy == pytest.approx(1 / 3)
    assert f"{accuracy}" == str(accuracy)


@pytest.mark.parametrize("copied", [lambda a: pickle.loads(pickle.dumps(a)), copy.copy, copy.deepcopy])
def test_a_copy_keeps_counts_and_confidence(copied: Callable[[Accuracy], Accuracy]) -> None:
    accuracy = copied(Accuracy(45, 50, 0.99))
    assert (accuracy, accuracy.correct, accuracy.total, accuracy.confidence) == (0.9, 45, 50, 0.99)
    assert str(accuracy) == str(Accuracy(45, 50, 0.99))


def test_balanced_accuracy_counts_every_class_once() -> None:
    labels = [0] * 98 + [1, 1]
    assert balanced_accuracy([True] * 98 + [False, False], labels) == 0.5
    assert balanced_accuracy([True] * 98 + [True, False], labels) == 0.75


def test_accuracies_sort() -> None:
    ordered = [Accuracy(correct, 7) for correct in range(8)]
    shuffled = random.Random(0).sample(ordered, 8)
    assert [accuracy.correct for accuracy in sorted(shuffled)] == list(range(8))


def test_an_accuracy_prints_its_counts_and_interval() -> None:
    assert str(Accuracy(45, 50)) == "45/50 = 90.0% (95% interval 78.6% to 95.7%)"
    assert repr(Accuracy(45, 50, 0.99)) == "45/50 = 90.0% (99% interval 74.0% to 96.6%)"
    assert "(99.9% interval " in str(Accuracy(45, 50, 0.999))


def test_a_failed_assertion_says_how_sure_it_is() -> None:
    with pytest.raises(AssertionError, match=r"45/50 = 90\.0% \(95% interval 78\.6% to 95\.7%\) >= 0\.95"):
        assert Accuracy(45, 50) >= 0.95


def test_a_comparison_that_does_not_hold_is_explained() -> None:
    accuracy = Accuracy(45, 50)
    assert accuracy.explain(">=", accuracy, 0.95) == [
        "45/50 = 90.0% (95% interval 78.6% to 95.7%) >= 0.95",
        "a difference of 5.0%, 3 of 50 images",
        "the interval contains that number: with so few images the difference may be chance",
    ]
    assert accuracy.explain(">", 0.99, accuracy)[0] == "0.99 > 45/50 = 90.0% (95% interval 78.6% to 95.7%)"
    assert len(accuracy.explain(">", 0.99, accuracy)) == 2
    assert accuracy.explain("==", accuracy, "x" * 1000) == [f"{accuracy} == {repr('x' * 1000)[:200]}"]
    assert len(Accuracy(0, 0).explain(">=", Accuracy(0, 0), 0.9)) == 1


def test_no_images_meet_no_bound() -> None:
    nothing = Accuracy(0, 0)
    assert math.isnan(nothing.value)
    assert nothing.interval == (0.0, 1.0)
    assert not nothing >= 0
    assert not nothing <= 1
    assert nothing != nothing.value
