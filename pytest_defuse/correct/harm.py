"""The harm of a correction: the corrected model compared with the old one image by image, and the bounds on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.statistics.significance import mcnemar

SIGNIFICANCE_LEVEL = 0.05
"""Level of the exact sign test on the classes, before Bonferroni correction: convention."""


@dataclass(frozen=True, eq=False)
class PairedPredictions:
    """Labels, and the predictions of the old and the corrected model: class indices, int64 N each."""

    labels: Tensor
    before: Tensor
    after: Tensor

    @property
    def drop(self) -> float:
        """Accuracy lost, in [-1, 1]."""
        return (len(self.negative_flips) - len(self.positive_flips)) / max(1, len(self.labels))

    @property
    def negative_flips(self) -> Tensor:
        """Indices of images that were classified correctly before and are not now."""
        return ((self.before == self.labels) & (self.after != self.labels)).nonzero().squeeze(1)

    @property
    def positive_flips(self) -> Tensor:
        """Indices of images that are classified correctly now and were not before."""
        return ((self.before != self.labels) & (self.after == self.labels)).nonzero().squeeze(1)

    def class_drops(self, classes: Sequence[str]) -> "list[ClassDrop]":
        """The drop of each class that occurs, the largest first."""
        drops = []
        for label in self.labels.unique().tolist():
            rows = self.labels == label
            part = PairedPredictions(self.labels[rows], self.before[rows], self.after[rows])
            lost, gained = len(part.negative_flips), len(part.positive_flips)
            drops.append(ClassDrop(classes[label], len(part.labels), lost, gained))
        return sorted(drops, key=lambda drop: -drop.value)


@dataclass(frozen=True)
class ClassDrop:
    """Images of one class: ``lost`` were correct before and are wrong now, ``gained`` the reverse."""

    label: str
    total: int
    lost: int
    gained: int

    @property
    def value(self) -> float:
        """Accuracy lost, in [-1, 1]."""
        return (self.lost - self.gained) / self.total

    def significant(self, classes: int) -> bool:
        """Whether the exact one-sided sign test finds more losses than gains.

        The level is Bonferroni-corrected: without, 2 of 43 classes would be significant by chance.
        """
        return self.lost > self.gained and mcnemar(self.lost, self.gained) / 2 < SIGNIFICANCE_LEVEL / classes


def violations(
    test: PairedPredictions,
    shifts: Mapping[str, PairedPredictions],
    settings: CorrectionSettings,
    classes: Sequence[str],
    name: str,
) -> list[str]:
    """The bounds on harm that fail, one sentence each; ``name`` names the images in ``test``."""
    failed = []
    drops, total = test.class_drops(classes), max(1, len(test.labels))
    if test.drop > settings.max_test_drop:
        failed.append(f"accuracy on the {name} fell by {test.drop:.2%}, more than {_bound('max_test_drop', settings)}")
    for drop in drops:
        if drop.value > settings.max_class_drop and drop.significant(len(drops)):
            failed.append(
                f"accuracy on class {drop.label!r} of the {name} fell by {drop.value:.1%} ({drop.lost} of {drop.total} "
                f"images lost, {drop.gained} gained), more than {_bound('max_class_drop', settings)}"
            )
    flips = len(test.negative_flips)
    if flips / total > settings.max_negative_flips:
        failed.append(
            f"{flips} of {total} images of the {name} were correct and are wrong, {flips / total:.1%}, more than "
            f"{_bound('max_negative_flips', settings)}"
        )
    for shift_name, shift in shifts.items():
        if shift.drop > settings.max_shift_drop:
            before = (shift.before == shift.labels).double().mean().item()
            failed.append(
                f"accuracy on shift set {shift_name} fell from {before:.1%} to {before - shift.drop:.1%}, more than "
                f"{_bound('max_shift_drop', settings)}"
            )
    return failed


def _bound(name: str, settings: CorrectionSettings) -> str:
    return f"{name} {getattr(settings, name):.1%}"
