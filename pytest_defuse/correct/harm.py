"""What a correction costs: the corrected model against the old one, image by image, and the bounds on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.statistics.significance import mcnemar

SURE = 0.05
"""Level of the exact sign test from which some class got worse by more than chance."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Predictions of two models on the same labelled images: class indices, int64 N each."""

    labels: Tensor
    before: Tensor
    after: Tensor

    @property
    def drop(self) -> float:
        """Accuracy lost, in [-1, 1]."""
        return (len(self.negative_flips) - len(self.positive_flips)) / max(1, len(self.labels))

    @property
    def negative_flips(self) -> Tensor:
        """Positions of images that were right and are wrong."""
        return ((self.before == self.labels) & (self.after != self.labels)).nonzero().squeeze(1)

    @property
    def positive_flips(self) -> Tensor:
        """Positions of images that were wrong and are right."""
        return ((self.before != self.labels) & (self.after == self.labels)).nonzero().squeeze(1)

    def class_drops(self) -> "list[ClassDrop]":
        """Accuracy lost on each class that occurs, the largest loss first."""
        drops, labels = [], self.labels.unique().tolist()
        for label in labels:
            own = self.labels == label
            part = Comparison(self.labels[own], self.before[own], self.after[own])
            negative, positive = len(part.negative_flips), len(part.positive_flips)
            drops.append(ClassDrop(label, len(part.labels), negative, positive, len(labels)))
        return sorted(drops, key=lambda drop: (-drop.value, drop.label))


@dataclass(frozen=True)
class ClassDrop:
    """How one class fared: of ``total`` images, ``negative`` were right and are wrong, ``positive`` the reverse.

    ``classes`` are compared alike.
    """

    label: int
    total: int
    negative: int
    positive: int
    classes: int

    @property
    def value(self) -> float:
        """Accuracy lost, in [-1, 1]."""
        return (self.negative - self.positive) / self.total

    @property
    def sure(self) -> bool:
        """Whether so many more losses than gains are no chance, by the exact one-sided sign test.

        The level is Bonferroni's: of 43 classes, two would lose that much at 0.05 where nothing changed but luck.
        """
        return self.negative > self.positive and mcnemar(self.negative, self.positive) / 2 < SURE / self.classes


def excesses(
    test: Comparison, shifts: Mapping[str, Comparison], settings: CorrectionSettings, classes: Sequence[str], what: str
) -> list[str]:
    """Every bound on harm that does not hold, a sentence each; ``what`` names the images of ``test``."""
    problems = []
    total = max(1, len(test.labels))
    if test.drop > settings.max_test_drop:
        problems.append(
            f"accuracy on the {what} fell by {test.drop:.2%}, more than {_bound('max_test_drop', settings)}"
        )
    for drop in test.class_drops():
        if drop.value > settings.max_class_drop and drop.sure:
            problems.append(
                f"accuracy on class {classes[drop.label]!r} of the {what} fell by {drop.value:.1%} ({drop.negative} of "
                f"{drop.total} images lost, {drop.positive} won), more than {_bound('max_class_drop', settings)}"
            )
    flips = len(test.negative_flips)
    if flips / total > settings.max_negative_flips:
        problems.append(
            f"{flips} of {total} images of the {what} were right and are wrong, {flips / total:.1%}, more than "
            f"{_bound('max_negative_flips', settings)}"
        )
    for name, shift in shifts.items():
        if shift.drop > settings.max_shift_drop:
            before = (shift.before == shift.labels).double().mean().item()
            problems.append(
                f"shift set {name} fell from {before:.1%} to {before - shift.drop:.1%}, more than "
                f"{_bound('max_shift_drop', settings)}"
            )
    return problems


def _bound(name: str, settings: CorrectionSettings) -> str:
    return f"{name} {getattr(settings, name):.1%}"
