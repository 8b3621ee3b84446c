"""How reliable the judges (reference classifiers that give a second opinion) are, on labelled held-out images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages

TARGET_ACCURACY = 0.995
"""Minimum accuracy of confident verdicts on held-out images that calibration aims at; our choice."""
ACCURACY_TOLERANCE = 0.02
"""A judge that is less accurate than the model by more than this is reported; our choice."""
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


def split_off(images: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """A random nine tenths to train on, and a tenth (at least one image) to hold out.

    Near-duplicates, such as the frames of one video, overstate the accuracy: use a validation set instead.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held_out = max(1, len(images) // 10)
    return images[order[held_out:]], images[order[:held_out]]


def calibrate(
    panel: Sequence[Classifier],
    held_out: LabelledImages,
    *,
    min_confidence: float = 0.9,
    target_accuracy: float = TARGET_ACCURACY,
) -> Judges:
    """The panel with the smallest confidence, at least ``min_confidence``, at which its confident verdicts are right.

    That is: at least ``target_accuracy`` of its confident verdicts on the held-out images are correct; if no confidence
    reaches that, the one with the highest accuracy. ``min_confidence`` is a floor because generated images are more
    unusual than held-out ones, and a small held-out set says little about rare errors.
    """
    labels, confidences = Judges(panel).verdicts(held_out.pixels)
    ranked = confidences.argsort(descending=True, stable=True)[: int((confidences >= min_confidence).sum())]
    confidences, correct = confidences[ranked], (labels == held_out.labels)[ranked]
    if not len(ranked):
        return Judges(panel, min_confidence)
    accuracies = correct.cumsum(0) / torch.arange(1, len(correct) + 1)
    # Verdicts of equal confidence are included together, so only the last of them is a possible threshold.
    distinct = torch.cat([confidences[1:] < confidences[:-1], torch.tensor([True])])
    accurate = distinct & (accuracies >= min(target_accuracy, accuracies[distinct].max().item()))
    last = int(accurate.nonzero().max())
    return Judges(panel, min_confidence if last == len(ranked) - 1 else confidences[last].item())


def judges_report(judges: Judges, model: Classifier, held_out: LabelledImages) -> JudgesReport:
    """Measure the judges and the model on held-out images.

    Raises:
        DefuseError: a judge is not better than always predicting the most common class.
    """
    classifiers = (*judges.panel, model)
    *accuracies, model_accuracy = (_share(c.predict(held_out.pixels) == held_out.labels) for c in classifiers)
    most_common = held_out.labels.bincount().max().item() / len(held_out)
    warnings = []
    for judge, accuracy in zip(judges.panel, accuracies, strict=True):
        finding = f"{judge.name} is correct on {accuracy:.1%} of {len(held_out)} held-out images"
        if accuracy <= most_common < 1:
            raise DefuseError(
                f"{finding}, not more than always predicting the most common class: check its weights, that it accepts "
                "the output of Subject(normalize=...), and the order of Subject(classes=...)."
            )
        if accuracy < model_accuracy - ACCURACY_TOLERANCE:
            warnings.append(
                f"{finding}, the model on {model_accuracy:.1%}: some failures will be errors of the judge; give better "
                "judges with Subject(judges=...)."
            )
    confident = _share(judges.labels(held_out.pixels)[1])
    if confident < MIN_CONFIDENT:
        warnings.append(
            f"The judges are confident about only {confident:.1%} of the held-out images, so most failures will be "
            "missed: give better judges with Subject(judges=...)."
        )
    return JudgesReport(tuple(accuracies), tuple(warnings))


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()
