import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_defuse.discover.judge_calibration import calibrate, judges_report
from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.statistics.accuracy import balanced_accuracy
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages
from tests.discover.stubs import Table


def numbered(labels: list[int]) -> LabelledImages:
    count = len(labels)
    return LabelledImages(torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1), torch.tensor(labels))


def judge_of(classes: list[int], confidences: list[float], name: str = "judge 1") -> Classifier:
    """A judge of two classes that predicts ``classes`` with these probabilities."""
    rows = [[c, 1 - c] if k == 0 else [1 - c, c] for k, c in zip(classes, confidences, strict=True)]
    return Classifier(Table(torch.tensor(rows)), 2, name=name)


def test_the_minimum_confidence_is_kept_if_confident_verdicts_are_correct() -> None:
    judge = judge_of([0, 1, 0, 1], [0.99, 0.95, 0.7, 0.6])
    assert calibrate([judge], numbered([0, 1, 0, 0])).confidence == 0.9


def test_the_confidence_rises_above_the_most_confident_errors() -> None:
    judge = judge_of([0, 1, 0, 1], [0.99, 0.97, 0.95, 0.93])
    judges = calibrate([judge], numbered([0, 1, 1, 1]))
    assert judges.confidence == pytest.approx(0.97)
    assert judges.labels(numbered([0, 1, 1, 1]).pixels)[1].tolist() == [True, True, False, False]


def test_an_error_that_the_other_judges_do_not_make_has_no_effect() -> None:
    held_out = numbered([0, 1, 0, 1])
    wrong, other = judge_of([0, 1, 1, 1], [0.99] * 4), judge_of([0, 1, 0, 1], [0.95] * 4)
    assert calibrate([wrong, other], held_out).confidence == 0.9


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    """99.6% of the confident verdicts are correct, but the judge is wrong on half of the rare class."""
    labels = [0] * 198 + [1, 1]
    judge = judge_of([0] * 199 + [1], [0.99] * 198 + [0.95, 0.99])
    judges = calibrate([judge], numbered(labels))
    assert judges.confidence == pytest.approx(0.99)
    assert not judges.labels(numbered(labels).pixels)[1][198]


def test_judges_that_are_never_confident_keep_the_minimum_confidence() -> None:
    assert calibrate([judge_of([0, 1], [0.6, 0.6])], numbered([0, 1])).confidence == 0.9


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 60), st.floats(0.6, 1.0))
def test_it_is_the_smallest_confidence_that_reaches_the_target(seed: int, count: int, n: int, target: float) -> None:
    numbers = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=numbers)
    panel = []
    for _ in range(count):
        correct = torch.rand(n, generator=numbers) < 0.85
        confidences = 0.5 + torch.rand(n, generator=numbers) / 2
        panel.append(judge_of(torch.where(correct, labels, 1 - labels).tolist(), confidences.tolist()))
    held_out = numbered(labels.tolist())
    chosen = calibrate(panel, held_out, min_confidence=0.6, target_accuracy=target).confidence

    def count_and_accuracy(confidence: float) -> tuple[int, float]:
        seen, confident = Judges(panel, confidence).labels(held_out.pixels)
        if not confident.any():
            return 0, math.nan
        return int(confident.sum()), balanced_accuracy((seen == labels)[confident].tolist(), labels[confident].tolist())

    lowest = torch.stack([judge.logits(held_out.pixels).softmax(dim=1).amax(dim=1) for judge in panel]).amin(dim=0)
    results = [count_and_accuracy(confidence) for confidence in (0.6, *lowest[lowest >= 0.6].tolist())]
    accuracies = [accuracy for _, accuracy in results if not math.isnan(accuracy)]
    assume(accuracies)
    required = min(target, max(accuracies)) - 1e-6
    chosen_count, accuracy = count_and_accuracy(chosen)
    assert accuracy >= required
    assert not any(accuracy >= required for count, accuracy in results if count > chosen_count)


def test_the_report_contains_the_accuracy_of_each_judge() -> None:
    held_out = numbered([0, 1, 0, 1, 0, 1])
    first, second = judge_of([0, 1, 0, 1, 1, 1], [0.99] * 6), judge_of([0, 1, 0, 0, 1, 1], [0.99] * 6)
    report = judges_report(Judges([first, second]), second, held_out)
    assert report.accuracies == pytest.approx((5 / 6, 4 / 6))
    assert report.warnings == ()


def test_a_judge_that_is_worse_than_the_model_is_reported() -> None:
    labels = [0, 1] * 50
    good, poor = labels[:], labels[:]
    good[0], poor[:4] = 1, [1, 0, 1, 0]
    panel = [judge_of(good, [0.99] * 100), judge_of(poor, [0.99] * 100, "judge 2")]
    held_out = numbered(labels)
    report = judges_report(calibrate(panel, held_out), judge_of(labels, [0.9] * 100), held_out)
    assert len(report.warnings) == 1
    assert "judge 2 is correct on 96.0% of 100 held-out images" in report.warnings[0]
    assert "the model on 100.0%" in report.warnings[0]


def test_judges_that_are_rarely_confident_are_reported() -> None:
    held_out = numbered([0, 1, 0, 1])
    judge = judge_of([0, 1, 0, 1], [0.99, 0.7, 0.7, 0.7])
    report = judges_report(calibrate([judge], held_out), judge, held_out)
    assert "confident about only 25.0% of the held-out images" in report.warnings[0]


def test_a_judge_that_always_predicts_one_class_is_refused() -> None:
    held_out = numbered([0, 1, 1, 1])
    judges = calibrate([judge_of([1, 1, 1, 1], [0.99] * 4, "judge 2 of subject 'signs'")], held_out)
    with pytest.raises(DefuseError, match=r"judge 2 of subject 'signs' is correct on 50.0% of 4 held-out images"):
        judges_report(judges, judge_of([0, 1, 1, 1], [0.9] * 4), held_out)


def test_a_judge_that_is_poor_on_the_common_class_alone_is_not_refused() -> None:
    """It is correct on fewer images than always predicting the common class, but it tells the classes apart."""
    labels = [1] * 90 + [0] * 10
    judge = judge_of([1] * 80 + [0] * 20, [0.99] * 100)
    report = judges_report(Judges([judge]), judge, numbered(labels))
    assert report.accuracies == (0.9,)
