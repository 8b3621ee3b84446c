"""How reliable the judges (reference classifiers that give a second opinion) are, on labelled held-out images."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.statistics.accuracy import balanced_accuracy
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages

TARGET_ACCURACY = 0.995
"""Minimum balanced accuracy of confident verdicts on held-out images that calibration aims at; our choice."""
ACCURACY_TOLERANCE = 0.02
"""A judge whose balanced accuracy is below the model's by more than this is reported; our choice."""
MIN_CONFIDENT = 0.5
"""Judges that are confident about a smaller share of the held-out images are reported; our choice."""


@dataclass(frozen=True)
class JudgesReport:
    """The quality of a panel of judges on held-out images.

    Attributes:
        accuracies: of each judge, in [0, 1].
        warnings: what to know before trusting the panel, one sentence each.
    """

    accuracies: tuple[float, ...]
    warnings: tuple[str, ...]


def calibrate(
    panel: Sequence[Classifier],
    held_out: LabelledImages,
    *,
    min_confidence: float = 0.9,
    target_accuracy: float = TARGET_ACCURACY,
) -> Judges:
    """The panel with the smallest confidence, at least ``min_confidence``, at which its confident verdicts are right.

    That is: the balanced accuracy of its confident verdicts on the held-out images, the mean over the classes, is at
    least ``target_accuracy``; if no confidence reaches that, the one with the highest. So rare classes count as much as
    common ones. ``min_confidence`` is a floor because generated images are more unusual than held-out ones, and a small
    held-out set says little about rare errors.
    """
    predictions, confidences = Judges(panel).verdicts(held_out.pixels)
    ranked = confidences.argsort(descending=True, stable=True)[: int((confidences >= min_confidence).sum())]
    if not len(ranked):
        return Judges(panel, min_confidence)
    confidences, labels = confidences[ranked], held_out.labels[ranked]
    accuracies = _balanced_accuracies(predictions[ranked] == labels, labels)
    # Verdicts of equal confidence are included together, so only the last of them is a possible threshold.
    distinct = torch.cat([confidences[1:] < confidences[:-1], torch.tensor([True])])
    accurate = distinct & (accuracies >= min(target_accuracy, accuracies[distinct].max().item()))
    last = int(accurate.nonzero().max())
    return Judges(panel, min_confidence if last == len(ranked) - 1 else confidences[last].item())


def judges_report(judges: Judges, model: Classifier, held_out: LabelledImages) -> JudgesReport:
    """Measure the judges and the model on held-out images.

    Raises:
        DefuseError: a judge is not better than always predicting one class.
    """
    labels = held_out.labels.tolist()
    correct = [(c.predict(held_out.pixels) == held_out.labels).tolist() for c in (*judges.panel, model)]
    *balanced, of_model = (balanced_accuracy(each, labels) for each in correct)
    classes, warnings = len(set(labels)), []
    for judge, accuracy in zip(judges.panel, balanced, strict=True):
        finding = (
            f"{judge.name} is correct on {accuracy:.1%} of {len(labels)} held-out images, averaged over the classes"
        )
        if accuracy <= 1 / classes < 1:
            raise DefuseError(
                f"{finding}, not more than always predicting one class: check its weights, that it accepts the output "
                "of Subject(normalize=...), and the order of Subject(classes=...)."
            )
        if accuracy < of_model - ACCURACY_TOLERANCE:
            warnings.append(
                f"{finding}, the model on {of_model:.1%}: some failures will be errors of the judge; give better "
                "judges with Subject(judges=...)."
            )
    confident = judges.labels(held_out.pixels)[1].double().mean().item()
    if confident < MIN_CONFIDENT:
        warnings.append(
            f"The judges are confident about only {confident:.1%} of the held-out images, so most failures will be "
            "missed: give better judges with Subject(judges=...)."
        )
    return JudgesReport(tuple(map(fmean, correct[:-1])), tuple(warnings))


def _balanced_accuracies(correct: Tensor, labels: Tensor) -> Tensor:
    """The balanced accuracy of the first 1, 2, ..., n images, float64 n, over the classes that are among them."""
    total = torch.zeros(len(labels), dtype=torch.float64)
    classes = torch.zeros_like(total)
    for label in labels.unique():
        images = (labels == label).cumsum(0)
        total += ((labels == label) & correct).cumsum(0) / images.clamp(min=1)
        classes += images > 0
    return total / classes
