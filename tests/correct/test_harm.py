from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.correct.harm import PairedPredictions, violations
from pytest_defuse.correct.settings import CorrectionSettings

CLASSES = ("cat", "dog")
STRICT = CorrectionSettings(max_test_drop=0, max_class_drop=0, max_negative_flips=0, max_shift_drop=0)
PREDICTIONS = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=30)


def compared(rows: Sequence[tuple[int, int, int]]) -> PairedPredictions:
    """From rows of (label, prediction before, prediction after)."""
    return PairedPredictions(*torch.tensor(rows).T)


@given(PREDICTIONS)
def test_flips_explain_the_drop(rows: list[tuple[int, int, int]]) -> None:
    comparison = compared(rows)
    before = sum(label == predicted for label, predicted, _ in rows)
    after = sum(label == predicted for label, _, predicted in rows)
    assert comparison.drop == pytest.approx((before - after) / len(rows))
    assert sum(drop.lost for drop in comparison.class_drops("abc")) == len(comparison.negative_flips)
    assert sum(drop.gained for drop in comparison.class_drops("abc")) == len(comparison.positive_flips)


@given(PREDICTIONS)
def test_a_model_with_the_same_predictions_does_no_harm(rows: list[tuple[int, int, int]]) -> None:
    same = compared([(label, before, before) for label, before, _ in rows])
    assert violations(same, {"blur": same}, STRICT, ("a", "b", "c"), "test set") == []


def test_every_bound_that_fails_is_reported() -> None:
    worse = compared([(0, 0, 1)] * 6 + [(1, 0, 1)] * 2 + [(1, 1, 1)] * 12)
    assert violations(worse, {"blur": worse, "noise": compared([(0, 0, 0)])}, STRICT, CLASSES, "test set") == [
        "accuracy on the test set fell by 20.00%, more than max_test_drop 0.0%",
        "accuracy on class 'cat' of the test set fell by 100.0% (6 of 6 images lost, 0 gained), more than "
        "max_class_drop 0.0%",
        "6 of 20 images of the test set were correct and are wrong, 30.0%, more than max_negative_flips 0.0%",
        "accuracy on shift set blur fell from 90.0% to 70.0%, more than max_shift_drop 0.0%",
    ]


def test_a_drop_within_its_bounds_is_not_reported() -> None:
    worse = compared([(0, 0, 1)] + [(0, 0, 0)] * 99)
    lenient = CorrectionSettings(max_test_drop=0.01, max_negative_flips=0.01, max_shift_drop=0.01)
    assert violations(worse, {"blur": worse}, lenient, CLASSES, "test set") == []


def test_one_lost_image_of_a_small_class_is_not_significant() -> None:
    assert not compared([(0, 0, 1), (0, 0, 0)]).class_drops(CLASSES)[0].significant(1)
    assert compared([(0, 0, 1)] * 5).class_drops(CLASSES)[0].significant(1)


def test_the_level_depends_on_the_number_of_classes() -> None:
    classes = [str(label) for label in range(43)]
    others = [(label, label, label) for label in range(1, 43)]
    lenient = CorrectionSettings(max_test_drop=1, max_negative_flips=1)
    for lost, sentences in ((9, 0), (10, 1)):
        worse = compared([(0, 0, 1)] * lost + others)
        assert len(violations(worse, {}, lenient, classes, "test set")) == sentences


def test_the_largest_drop_comes_first() -> None:
    drops = compared([(0, 0, 0)] * 3 + [(1, 1, 0)] + [(1, 1, 1)]).class_drops(CLASSES)
    assert [(drop.label, drop.total, drop.value) for drop in drops] == [("dog", 2, 0.5), ("cat", 3, 0.0)]
