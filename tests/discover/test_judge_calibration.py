import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_defuse.discover.judge_calibration import calibrated, judges_report, split_off
from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages


class Table(nn.Module):
    """The probabilities of an image are written in a table, at the number that its pixel holds."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", probabilities.log())

    def forward(self, images: Tensor) -> Tensor:
        rows: Tensor = self.table[(images.flatten(1)[:, 0] * 255).round().long()]
        return rows


def numbered(labels: list[int]) -> LabelledImages:
    count = len(labels)
    return LabelledImages(torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1), torch.tensor(labels))


def says(classes: list[int], confidences: list[float], name: str = "judge 1") -> Classifier:
    """A judge of two classes that names these, with these probabilities."""
    rows = [[c, 1 - c] if k == 0 else [1 - c, c] for k, c in zip(classes, confidences, strict=True)]
    return Classifier(Table(torch.tensor(rows)), 2, name=name)


def test_the_floor_will_do_where_sure_verdicts_are_right() -> None:
    judge = says([0, 1, 0, 1], [0.99, 0.95, 0.7, 0.6])
    assert calibrated([judge], numbered([0, 1, 0, 0])).confidence == 0.9


def test_the_confidence_rises_above_the_surest_mistakes() -> None:
    judge = says([0, 1, 0, 1], [0.99, 0.97, 0.95, 0.93])
    judges = calibrated([judge], numbered([0, 1, 1, 1]))
    assert judges.confidence == pytest.approx(0.97)
    assert judges.verdicts(numbered([0, 1, 1, 1]).pixels)[1].tolist() == [True, True, False, False]


def test_a_mistake_that_the_others_do_not_share_costs_nothing() -> None:
    held_out = numbered([0, 1, 0, 1])
    alone, other = says([0, 1, 1, 1], [0.99] * 4), says([0, 1, 0, 1], [0.95] * 4)
    assert calibrated([alone, other], held_out).confidence == 0.9


def test_judges_that_are_never_sure_keep_the_floor() -> None:
    assert calibrated([says([0, 1], [0.6, 0.6])], numbered([0, 1])).confidence == 0.9


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 60), st.floats(0.6, 1.0))
def test_it_is_the_smallest_confidence_that_reaches_the_level(seed: int, count: int, n: int, level: float) -> None:
    numbers = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=numbers)
    panel = []
    for _ in range(count):
        right = torch.rand(n, generator=numbers) < 0.85
        sureness = 0.5 + torch.rand(n, generator=numbers) / 2
        panel.append(says(torch.where(right, labels, 1 - labels).tolist(), sureness.tolist()))
    held_out = numbered(labels.tolist())
    chosen = calibrated(panel, held_out, least=0.6, level=level).confidence

    def sure_and_right(confidence: float) -> tuple[int, float]:
        seen, sure = Judges(panel, confidence).verdicts(held_out.pixels)
        return int(sure.sum()), (seen == labels)[sure].double().mean().item()

    doubts = torch.stack([judge.logits(held_out.pixels).softmax(dim=1).amax(dim=1) for judge in panel]).amin(dim=0)
    tried = [sure_and_right(confidence) for confidence in (0.6, *doubts[doubts >= 0.6].tolist())]
    reached = [accuracy for _, accuracy in tried if not math.isnan(accuracy)]
    assume(reached)
    enough = min(level, max(reached)) - 1e-6
    count_sure, accuracy = sure_and_right(chosen)
    assert accuracy >= enough
    assert not any(accuracy >= enough for count, accuracy in tried if count > count_sure)


def test_the_report_measures_the_panel_and_the_model() -> None:
    held_out = numbered([0, 1, 0, 1, 0, 1])
    first, second = says([0, 1, 0, 1, 1, 1], [0.99] * 6), says([0, 1, 0, 0, 1, 1], [0.99, 0.99, 0.8, 0.99, 0.99, 0.99])
    judges = calibrated([first, second], held_out, level=0.5)
    report = judges_report(judges, says([0, 1, 0, 1, 0, 1], [0.9] * 6), held_out)
    assert (report.images, report.confidence) == (6, 0.9)
    assert report.accuracies == pytest.approx((5 / 6, 4 / 6))
    assert (report.model_accuracy, report.agreement, report.sure) == pytest.approx((1, 5 / 6, 4 / 6))
    assert report.sure_accuracy == pytest.approx(3 / 4)


def test_judges_that_are_worse_than_the_model_are_named() -> None:
    labels = [0, 1] * 50
    good, poor = labels[:], labels[:]
    good[0], poor[:4] = 1, [1, 0, 1, 0]
    panel = [says(good, [0.99] * 100), says(poor, [0.99] * 100, "judge 2")]
    held_out = numbered(labels)
    report = judges_report(calibrated(panel, held_out), says(labels, [0.9] * 100), held_out)
    assert len(report.warnings) == 1
    assert "judge 2 is right on 96.0% of 100 held-out images and the model on 100.0%" in report.warnings[0]


def test_judges_that_are_hardly_ever_sure_are_warned_of() -> None:
    held_out = numbered([0, 1, 0, 1])
    judge = says([0, 1, 0, 1], [0.99, 0.7, 0.7, 0.7])
    report = judges_report(calibrated([judge], held_out), judge, held_out)
    assert "sure of 25.0% of the held-out images only" in report.warnings[0]


def test_a_judge_that_only_names_one_class_is_refused() -> None:
    held_out = numbered([0, 1, 1, 1])
    judges = calibrated([says([1, 1, 1, 1], [0.99] * 4, "judge 2 of subject 'signs'")], held_out)
    with pytest.raises(DefuseError, match=r"judge 2 of subject 'signs' is right on 75.0% of 4 held-out images"):
        judges_report(judges, says([0, 1, 1, 1], [0.9] * 4), held_out)


@given(st.integers(2, 300), st.integers(0, 2**32))
def test_a_tenth_is_split_off_and_nothing_is_lost(count: int, seed: int) -> None:
    images = LabelledImages(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.arange(count))
    train, held_out = split_off(images, seed)
    assert len(held_out) == max(1, count // 10)
    assert sorted([*train.labels.tolist(), *held_out.labels.tolist()]) == list(range(count))
    assert torch.equal(split_off(images, seed)[1].labels, held_out.labels)
