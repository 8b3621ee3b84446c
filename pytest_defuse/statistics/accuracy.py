"""An accuracy as counts, with its interval."""

import math
import operator
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from statistics import fmean
from typing import Self

from pytest_defuse.statistics.significance import critical_value

DEFAULT_CONFIDENCE = 0.95
"""Confidence of an interval that is only shown: the convention in statistics."""


def wilson_interval(successes: int, total: int, confidence: float = DEFAULT_CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (Wilson 1927, JASA 22, p. 209), with both ends in [0, 1].

    Without images it is (0, 1). ``confidence`` is the two-sided coverage, in (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    z = critical_value(confidence)
    share, shrinkage = successes / total, z * z / total
    centre = (share + shrinkage / 2) / (1 + shrinkage)
    half = z / (1 + shrinkage) * math.sqrt(share * (1 - share) / total + shrinkage / (4 * total))
    return max(0.0, centre - half) if successes else 0.0, min(1.0, centre + half) if successes < total else 1.0


class Accuracy(float):
    """``correct`` of ``total`` images: the number ``correct / total`` in [0, 1], which prints its interval.

    Without images it is NaN.
    """

    correct: int
    total: int
    confidence: float

    def __new__(cls, correct: int, total: int, confidence: float = DEFAULT_CONFIDENCE) -> Self:
        """The accuracy ``correct / total``; ``confidence`` is that of its interval, in (0, 1)."""
        accuracy = super().__new__(cls, correct / total if total else math.nan)
        accuracy.correct, accuracy.total, accuracy.confidence = correct, total, confidence
        return accuracy

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.correct, self.total, self.confidence), vars(self)

    @property
    def value(self) -> float:
        """The plain number."""
        return float(self)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval at this object's confidence."""
        return wilson_interval(self.correct, self.total, self.confidence)

    def __str__(self) -> str:
        low, high = self.interval
        interval = f"{self.confidence * 100:g}% interval {low:.1%} to {high:.1%}"
        return f"{self.correct}/{self.total} = {self.value:.1%} ({interval})"

    __repr__ = __str__

    def explain(self, op: str, left: object, right: object) -> list[str]:
        """Lines that explain why ``left op right`` is false, where one of them is this accuracy."""
        lines = [f"{_shown(left)} {op} {_shown(right)}"]
        other = right if left is self else left
        if not isinstance(other, (int, float)) or not self.total:
            return lines
        difference = abs(self.value - float(other))
        images = math.ceil(difference * self.total - 1e-9)  # 1e-9: no further image for a rounding error
        lines.append(f"a difference of {difference:.1%}, {images} of {self.total} images")
        low, high = self.interval
        if low <= float(other) <= high:
            lines.append("the interval contains that number: with so few images the difference may be chance")
        return lines


def accuracy_of(predicted: Sequence[object], labels: Sequence[object]) -> Accuracy:
    """The accuracy of predicted classes against labels, one per image."""
    return Accuracy(sum(map(operator.eq, predicted, labels)), len(labels))


def balanced_accuracy(correct: Sequence[bool], labels: Sequence[int]) -> float:
    """The mean over the labels of the share of correct images with each label, in [0, 1]; at least one image."""
    totals, hits = Counter(labels), Counter(compress(labels, correct))
    return fmean(hits[label] / total for label, total in totals.items())


def _shown(side: object) -> str:
    return str(side) if isinstance(side, Accuracy) else repr(side)[:200]
