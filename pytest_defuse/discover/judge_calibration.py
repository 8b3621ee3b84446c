"""How far the judges can be trusted: measured on labelled images that no training saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages

MARGIN = 0.02
"""A judge that is less accurate than the model by more than this is warned of."""


@dataclass(frozen=True)
class JudgesReport:
    """What a panel is worth, on held-out images.

    Attributes:
        images: how many held-out images.
        confidence: softmax probability from which a judge is sure.
        accuracies: of each judge.
        model_accuracy: of the model under test.
        agreement: share of the images on which all judges agree.
        sure: share on which all agree and all are sure.
        sure_accuracy: accuracy of these sure verdicts; NaN where there are none.
        warnings: what a person should know before believing this panel, a sentence each.
    """

    images: int
    confidence: float
    accuracies: tuple[float, ...]
    model_accuracy: float
    agreement: float
    sure: float
    sure_accuracy: float
    warnings: tuple[str, ...]


def split_off(images: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Nine tenths to train on and a tenth (at least one image) to hold out, in an order that the seed decides.

    Where frames of one scene are near-duplicates, as in GTSRB, such a tenth flatters: give a validation set.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    kept = max(1, len(images) // 10)
    return images[order[kept:]], images[order[:kept]]


def calibrated(
    panel: Sequence[Classifier], held_out: LabelledImages, *, least: float = 0.9, level: float = 0.995
) -> Judges:
    """The panel with the smallest confidence, from ``least`` on, at which its sure verdicts are right.

    A verdict is sure at a confidence when all judges agree and each is at least that confident. Chosen is
    the smallest confidence at which at least ``level`` of the sure verdicts on the held-out images are right;
    where none reaches that, the one at which most are. ``least`` stays a floor, because generated images
    are stranger than held-out ones, and because few held-out images say little about rare errors.
    """
    probabilities = torch.stack([judge.logits(held_out.pixels).softmax(dim=1) for judge in panel])
    confidences, classes = probabilities.max(dim=2)
    doubt, seen = confidences.min(dim=0).values, classes[0]
    candidates = (classes == seen).all(dim=0) & (doubt >= least)
    order = doubt[candidates].argsort(descending=True, stable=True)
    doubt, right = doubt[candidates][order], (seen == held_out.labels)[candidates][order]
    if not len(doubt):
        return Judges(panel, least)
    accuracy = right.cumsum(0) / torch.arange(1, len(right) + 1)
    distinct = torch.cat([doubt[1:] < doubt[:-1], torch.tensor([True])])  # equal confidences stand or fall together
    enough = distinct & (accuracy >= min(level, accuracy[distinct].max().item()))
    last = int(enough.nonzero().max())
    # Nothing was rejected: the floor itself will do.
    return Judges(panel, least if last == len(doubt) - 1 else doubt[last].item())


def judges_report(judges: Judges, model: Classifier, held_out: LabelledImages) -> JudgesReport:
    """Measure the judges, and the model beside them, on held-out images.

    Raises:
        DefuseError: a judge is no better than always naming the most common class.
    """
    classes = torch.stack([judge.predict(held_out.pixels) for judge in judges.panel])
    accuracies = [_share(row == held_out.labels) for row in classes]
    model_accuracy = _share(model.predict(held_out.pixels) == held_out.labels)
    most_common = held_out.labels.bincount().max().item() / len(held_out)
    for judge, accuracy in zip(judges.panel, accuracies, strict=True):
        if accuracy <= most_common < 1:
            raise DefuseError(
                f"{judge.name} is right on {accuracy:.1%} of {len(held_out)} held-out images, no more than always "
                "naming the most common class: check its weights, that it takes what Subject(normalize=...) gives, "
                "and the order of Subject(classes=...)."
            )
    seen, sure = judges.verdicts(held_out.pixels)
    return JudgesReport(
        images=len(held_out),
        confidence=judges.confidence,
        accuracies=tuple(accuracies),
        model_accuracy=model_accuracy,
        agreement=_share((classes == classes[0]).all(dim=0)),
        sure=_share(sure),
        sure_accuracy=_share((seen == held_out.labels)[sure]),
        warnings=tuple(_warnings(judges, accuracies, model_accuracy, _share(sure), len(held_out))),
    )


def _warnings(judges: Judges, accuracies: list[float], model_accuracy: float, sure: float, images: int) -> list[str]:
    worse = [
        f"{judge.name} is right on {accuracy:.1%} of {images} held-out images and the model on {model_accuracy:.1%}: "
        "some failures will be the judge's; train better judges and give them in Subject(judges=...)."
        for judge, accuracy in zip(judges.panel, accuracies, strict=True)
        if accuracy < model_accuracy - MARGIN
    ]
    if sure < 0.5:
        worse.append(
            f"The judges are sure of {sure:.1%} of the held-out images only, so most failures will go unseen: train "
            "better judges and give them in Subject(judges=...)."
        )
    return worse


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()
