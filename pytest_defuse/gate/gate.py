"""The gate: a model held against accepted scenarios and the test set."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pytest_defuse.classifier import Classifier
from pytest_defuse.determinism import seeded
from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.accuracy import Accuracy
from pytest_defuse.gate.baseline import Baseline
from pytest_defuse.gate.bounds import Bounds, Verdict, judge
from pytest_defuse.scenarios.sheets import pixel_hash
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject import Subject


@dataclass(frozen=True, eq=False, repr=False)
class GatedScenario:
    """An accepted scenario as a test sees it.

    Attributes:
        id, label: the scenario's.
        images: uint8 N x C x H x W, the held-out tiles; correction never sees them.
        predictions: class names, one an image, of the model under test.
        accuracy: how many are the label.
        verdict: against the bounds of the test's ``defuse`` marker.
        file: its scenario.yaml.
    """

    id: str
    label: str
    images: Tensor
    predictions: tuple[str, ...]
    accuracy: Accuracy
    verdict: Verdict
    file: Path

    def __repr__(self) -> str:
        return f"<scenario {self.id}: {self.accuracy}>"

    def check(self) -> None:
        """Fail the test when the bound fails, saying what the model took the images for.

        Raises:
            AssertionError: the bound fails.
        """
        __tracebackhide__ = True
        if self.verdict.outcome == "fails":
            raise AssertionError(self.sentence)

    @property
    def sentence(self) -> str:
        """Accuracy, interval, bound and what the images were taken for, in one sentence."""
        wrong = Counter(name for name in self.predictions if name != self.label).most_common(3)
        taken = "; taken for " + ", ".join(f"{name!r} ({count})" for name, count in wrong) if wrong else ""
        words = {"holds": "holds", "fails": "is below", "unsure": "cannot be told from, with so few images,"}
        return (
            f"scenario {self.id} (label {self.label!r}): accuracy {self.accuracy} "
            f"{words[self.verdict.outcome]} the bound {self.verdict.bound:.1%} ({self.verdict.reason}){taken}."
        )


def gate_scenario(
    scenario: Scenario, subject: Subject, model: Classifier, bounds: Bounds, baseline: Baseline | None = None
) -> GatedScenario:
    """Run the model on the held-out tiles of an accepted scenario.

    Raises:
        DefuseError: the scenario's label is no class of the subject, its pictures do not fit, or the
            baseline is about other pictures.
    """
    label = scenario.record.label
    if label is None or label not in subject.classes:
        raise DefuseError(
            f"{scenario.yaml}: label {label!r} is not a class of subject {subject.name!r}, "
            f"which has: {', '.join(subject.classes)}."
        )
    tiles = scenario.pixels("held_out")
    images = torch.from_numpy(tiles)
    with seeded(0):
        subject.check_images(images, str(scenario.picture("held_out")))
        predictions = tuple(subject.classes[index] for index in model.predict(images).tolist())
    accuracy = Accuracy(predictions.count(label), len(predictions), bounds.confidence or 0.95)
    verdict = judge(
        accuracy,
        bounds,
        recorded=scenario.record.sheets.held_out.accuracy(label),
        baseline=baseline.accuracy(scenario.id, pixel_hash(tiles), label) if baseline else None,
    )
    return GatedScenario(scenario.id, label, images, predictions, accuracy, verdict, scenario.yaml)


def predict_test(subject: Subject, model: Classifier) -> Tensor:
    """Class indices, int64 N, that the model gives to the subject's test set."""
    with seeded(0):
        return model.predict(subject.test_images.pixels)


def shift_accuracies(subject: Subject, before: Classifier, after: Classifier) -> dict[str, tuple[float, float]]:
    """Accuracy of two models on each of the subject's shift sets, by name."""
    scores = {}
    with seeded(0):
        for name in subject.shifts:
            images = subject.shift_images(name)
            scores[name] = (
                measured(before.predict(images.pixels), images.labels).value,
                measured(after.predict(images.pixels), images.labels).value,
            )
    return scores


def measured(predictions: Tensor, labels: Tensor) -> Accuracy:
    """The accuracy of predicted class indices, int64 N, against labels, int64 N."""
    return Accuracy(int(torch.eq(predictions, labels).sum()), len(labels))
