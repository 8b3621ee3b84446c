from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.correct.harm import ClassDrop, PairedPredictions, violations
from pytest_defuse.correct.judgement import problems_of
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
    assert problems_of(violations(same, {"blur": same}, STRICT, ("a", "b", "c"), "test set")) == []


def test_every_bound_that_fails_is_reported() -> None:
    worse = compared([(0, 0, 1)] * 6 + [(1, 0, 1)] * 2 + [(1, 1, 1)] * 12)
    found = violations(worse, {"blur": worse, "noise": compared([(0, 0, 0)])}, STRICT, CLASSES, "test set")
    assert problems_of(found) == [
        "accuracy on the test set fell by 20.00%, more than max_test_drop 0.0%",
        "accuracy on class 'cat' of the test set fell by 100.0% (6 of 6 images lost, 0 gained), more than "
        "max_class_drop 0.0%",
        "6 of 20 images of the test set were correct and are wrong, 30.0%, more than max_negative_flips 0.0%",
        "accuracy on shift set blur fell from 90.0% to 70.0%, more than max_shift_drop 0.0%",
    ]


def test_a_drop_within_its_bounds_is_not_reported() -> None:
    worse = compared([(0, 0, 1)] + [(0, 0, 0)] * 99)
    lenient = CorrectionSettings(max_test_drop=0.01, max_negative_flips=0.01, max_shift_drop=0.01)
    assert violations(worse, {"blur": worse}, lenient, CLASSES[:1], "test set") == []


def test_a_class_without_images_is_named() -> None:
    same = compared([(1, 1, 1)])
    (note,) = violations(same, {}, STRICT, ("cat", "dog", "eel"), "test set")
    assert (note.outcome, note.sentence) == (
        "PASS",
        "max_class_drop is not judged for 'cat', 'eel': the test set has no such image",
    )


@pytest.mark.parametrize(
    ("lost", "gained", "total", "classes", "outcome"),
    [
        (15, 0, 50, 1000, "FAIL"),
        (16, 1, 50, 1000, "INCONCLUSIVE"),
        (32, 17, 50, 1000, "INCONCLUSIVE"),
        (50, 0, 50, 1000, "FAIL"),
        (5, 0, 50, 1000, "INCONCLUSIVE"),
        (4, 0, 50, 1000, "PASS"),
        (1, 0, 10, 10, "PASS"),
        (2, 0, 10, 10, "INCONCLUSIVE"),
        (1, 0, 1, 10, "INCONCLUSIVE"),
        (30, 0, 1000, 10, "PASS"),
        (39, 0, 1000, 10, "PASS"),
        (40, 0, 1000, 10, "INCONCLUSIVE"),
        (60, 0, 1000, 10, "FAIL"),
        (0, 5, 50, 10, "PASS"),
    ],
)
def test_the_drop_of_a_class_has_three_outcomes(lost: int, gained: int, total: int, classes: int, outcome: str) -> None:
    assert ClassDrop("cat", total, lost, gained).outcome(0.03, classes) == outcome


def test_a_drop_of_30_percent_never_passes_in_a_class_of_50() -> None:
    for gained in range(18):
        assert ClassDrop("cat", 50, 15 + gained, gained).outcome(0.03, 1000) != "PASS"


def test_where_no_loss_could_be_significant_the_drop_decides() -> None:
    assert ClassDrop("cat", 2, 2, 0).outcome(0.3, 10) == "FAIL"
    assert ClassDrop("cat", 2, 0, 0).outcome(0.3, 10) == "PASS"


def test_chance_among_many_classes_is_inconclusive() -> None:
    classes = [str(label) for label in range(43)]
    others = [(label, label, label) for label in range(1, 43)]
    lenient = CorrectionSettings(max_test_drop=1, max_negative_flips=1)
    for lost, outcome in ((9, "INCONCLUSIVE"), (10, "FAIL")):
        (judgement,) = violations(compared([(0, 0, 1)] * lost + others), {}, lenient, classes, "test set")
        assert judgement.outcome == outcome
        assert ("which may be chance among 43 classes" in judgement.sentence) == (outcome == "INCONCLUSIVE")


def test_the_largest_drop_comes_first() -> None:
    drops = compared([(0, 0, 0)] * 3 + [(1, 1, 0)] + [(1, 1, 1)]).class_drops(CLASSES)
    assert [(drop.label, drop.total, drop.value) for drop in drops] == [("dog", 2, 0.5), ("cat", 3, 0.0)]
