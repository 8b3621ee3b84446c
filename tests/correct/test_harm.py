from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.correct.harm import Comparison, excesses
from pytest_defuse.correct.settings import CorrectionSettings

CLASSES = ("cat", "dog")
STRICT = CorrectionSettings(max_test_drop=0, max_class_drop=0, max_negative_flips=0, max_shift_drop=0)
ANSWERS = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=30)


def compared(rows: Sequence[tuple[int, int, int]]) -> Comparison:
    """Rows of label, answer before, answer after."""
    return Comparison(*torch.tensor(rows).T)


@given(ANSWERS)
def test_flips_explain_the_drop(rows: list[tuple[int, int, int]]) -> None:
    comparison = compared(rows)
    before = sum(label == answer for label, answer, _ in rows)
    after = sum(label == answer for label, _, answer in rows)
    assert comparison.drop == pytest.approx((before - after) / len(rows))
    assert sum(drop.negative for drop in comparison.class_drops()) == len(comparison.negative_flips)
    assert sum(drop.positive for drop in comparison.class_drops()) == len(comparison.positive_flips)


@given(ANSWERS)
def test_a_model_that_answers_as_before_does_no_harm(rows: list[tuple[int, int, int]]) -> None:
    same = compared([(label, answer, answer) for label, answer, _ in rows])
    assert excesses(same, {"blur": same}, STRICT, ("a", "b", "c"), "test set") == []


def test_every_bound_that_does_not_hold_is_said() -> None:
    worse = compared([(0, 0, 1)] * 6 + [(1, 0, 1)] * 2 + [(1, 1, 1)] * 12)
    assert excesses(worse, {"blur": worse, "noise": compared([(0, 0, 0)])}, STRICT, CLASSES, "test set") == [
        "accuracy on the test set fell by 20.00%, more than max_test_drop 0.0%",
        "accuracy on class 'cat' of the test set fell by 100.0% (6 of 6 images lost, 0 won), more than "
        "max_class_drop 0.0%",
        "6 of 20 images of the test set were right and are wrong, 30.0%, more than max_negative_flips 0.0%",
        "shift set blur fell from 90.0% to 70.0%, more than max_shift_drop 0.0%",
    ]


def test_a_loss_within_its_bounds_is_none() -> None:
    worse = compared([(0, 0, 1)] + [(0, 0, 0)] * 99)
    lenient = CorrectionSettings(max_test_drop=0.01, max_negative_flips=0.01, max_shift_drop=0.01)
    assert excesses(worse, {"blur": worse}, lenient, CLASSES, "test set") == []


def test_a_class_of_few_images_can_lose_one_by_chance() -> None:
    assert not compared([(0, 0, 1), (0, 0, 0)]).class_drops()[0].sure
    assert compared([(0, 0, 1)] * 5).class_drops()[0].sure


def test_of_many_classes_one_can_lose_more_by_chance() -> None:
    others = [(label, label, label) for label in range(1, 43)]
    assert not compared([(0, 0, 1)] * 9 + others).class_drops()[0].sure
    assert compared([(0, 0, 1)] * 10 + others).class_drops()[0].sure


def test_the_class_that_lost_most_comes_first() -> None:
    drops = compared([(0, 0, 0)] * 3 + [(1, 1, 0)] + [(1, 1, 1)]).class_drops()
    assert [(drop.label, drop.total, drop.value) for drop in drops] == [(1, 2, 0.5), (0, 3, 0.0)]
