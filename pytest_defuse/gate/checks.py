"""Bounds evaluated on labelled predictions. The results are plain values, ready for JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.statistics.accuracy import DEFAULT_CONFIDENCE, wilson_interval
from pytest_defuse.statistics.significance import (
    benjamini_hochberg,
    images_needed,
    mcnemar,
    paired_interval,
    paired_score,
    score,
    two_sided_p,
)

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
WORST_FIRST: tuple[Outcome, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
TOLERANCE = 1e-12
"""A value equal to its limit passes: 1 - 0.9 and 9/10 differ by rounding of about 1e-16."""


@dataclass(frozen=True)
class Comparison:
    """A model compared with the baseline on the same images.

    Attributes:
        total: images that both models classified; the baseline classifies ``correct`` of them correctly.
        lost, gained: positions of images that only the baseline, only this model classifies correctly.
        p: McNemar's exact test of ``lost`` against ``gained``.
        adjusted_p: ``p`` after Benjamini and Hochberg's adjustment over all scenarios of the run.
    """

    total: int
    correct: int
    lost: list[int]
    gained: list[int]
    p: float
    adjusted_p: float


@dataclass(frozen=True)
class Check:
    """One bound evaluated on one group of images.

    Attributes:
        bound: its name in the marker ``defuse``, or ``no_regression``.
        group: the class whose images are counted; empty for all images.
        total: number of images; for a drop and for flips, of those that the baseline contains.
        measured: an accuracy in [0, 1], a drop in accuracy in [-1, 1], or a number of flips.
        limit: the bound's value, in the unit of ``measured``.
        accuracy: the accuracy that the bound requires, in [0, 1]; 0 if it requires none.
        interval: Wilson's for an accuracy and (times ``total``) for flips, Tango's for a drop.
        outcome: ``INCONCLUSIVE`` if the images are too few to decide.
        reason: the origin of the limit, in words.
        p: two-sided, of the score test that the true value equals ``limit``; None without ``confidence`` in the bounds.
        adjusted_p: ``p`` after Benjamini and Hochberg's adjustment over all checks of the run.
        images_needed: how many images with the same shares would decide; None if decided, or if no number would.
    """

    bound: str
    group: str
    total: int
    measured: float
    limit: float
    accuracy: float
    confidence: float
    interval: tuple[float, float]
    outcome: Outcome
    reason: str
    p: float | None = None
    adjusted_p: float | None = None
    images_needed: int | None = None


def compare(predictions: LabelledPredictions) -> Comparison | None:
    """Compare predictions with the baseline's; None if the baseline contains none of the images."""
    triples = zip(predictions.labels, predictions.predicted, predictions.baseline, strict=True)
    rows = [(index, *row) for index, row in enumerate(triples) if row[2] is not None]
    if not rows:
        return None
    lost = [index for index, label, predicted, baseline in rows if baseline == label != predicted]
    gained = [index for index, label, predicted, baseline in rows if predicted == label != baseline]
    correct = sum(label == baseline for _, label, _, baseline in rows)
    p = mcnemar(len(lost), len(gained))
    return Comparison(len(rows), correct, lost, gained, p, adjusted_p=p)


def evaluate(predictions: LabelledPredictions, bounds: Bounds) -> list[Check]:
    """Evaluate every bound on its own; :func:`decide` then adjusts for multiple testing."""
    groups = {"": predictions}
    if bounds.per_class:
        groups |= {name: predictions.of_class(name) for name in sorted(set(predictions.labels))}
    return [check for name, part in groups.items() for check in _Group(name, part, bounds.confidence).checks(bounds)]


def decide(families: Sequence[Sequence[Check]]) -> list[tuple[Check, ...]]:
    """Adjust the checks of one run for multiple testing; returns them in the same families.

    With ``confidence`` in the bounds, a check is PASS or FAIL only if its p-value is at most 1 - confidence after
    Benjamini and Hochberg's adjustment over all checks that are on the same side of their limit; else INCONCLUSIVE.
    """
    tested = [check for family in families for check in family if check.p is not None]
    # Each side is adjusted on its own, so that the success of one scenario does not make another's miss significant.
    adjusted = {
        outcome: benjamini_hochberg([check.p or 0.0 if check.outcome == outcome else 1.0 for check in tested])
        for outcome in WORST_FIRST
    }
    decided = iter([_decided(check, adjusted[check.outcome][index]) for index, check in enumerate(tested)])
    return [tuple(check if check.p is None else next(decided) for check in family) for family in families]


def adjust(comparisons: Sequence[Comparison | None]) -> list[Comparison | None]:
    """The comparisons of one run, with p-values adjusted for multiple testing."""
    adjusted = iter(benjamini_hochberg([comparison.p for comparison in comparisons if comparison]))
    return [replace(comparison, adjusted_p=next(adjusted)) if comparison else None for comparison in comparisons]


def _decided(check: Check, adjusted_p: float) -> Check:
    assert check.p is not None
    alpha = 1 - check.confidence
    if adjusted_p <= alpha:
        return replace(check, adjusted_p=adjusted_p)
    # alpha * p / adjusted_p is the threshold for p at this check's rank among all.
    needed = images_needed(check.total, check.p, alpha * check.p / adjusted_p)
    return replace(check, adjusted_p=adjusted_p, outcome="INCONCLUSIVE", images_needed=needed)


class _Group:
    """The images of one class, or all images; ``checks`` evaluates the bounds on them, other methods one bound each."""

    def __init__(self, name: str, predictions: LabelledPredictions, confidence: float | None) -> None:
        self.name, self.predictions, self.confidence = name, predictions, confidence
        self.level = confidence or DEFAULT_CONFIDENCE
        self.comparison = compare(predictions)

    def checks(self, bounds: Bounds) -> list[Check]:
        baseline = self.comparison.correct / self.comparison.total if self.comparison else 0
        evaluations: dict[str, Callable[[Any], Check]] = {
            "min_accuracy": lambda limit: self.accuracy("min_accuracy", limit, "min_accuracy"),
            "max_error_rate": lambda rate: self.accuracy("max_error_rate", 1 - rate, f"max_error_rate {rate:.1%}"),
            "max_increase": self.increase,
            "max_drop": lambda limit: self.drop("max_drop", limit),
            "max_relative_drop": lambda share: self.drop("max_relative_drop", share * baseline),
            "max_flips": self.flips,
        }
        limits = {name: getattr(bounds, name) for name in evaluations}
        checks = [evaluations[name](limit) for name, limit in limits.items() if limit is not None]
        if checks:
            return checks
        if self.comparison:
            return [self.drop("no_regression", 0.0)]
        recorded = self.predictions.recorded
        return [] if recorded is None else [self.accuracy("no_regression", recorded, "no regression from discovery")]

    def accuracy(self, bound: str, minimum: float, reason: str) -> Check:
        correct, total = self.predictions.correct, self.predictions.total
        value = correct / total if total else 0.0
        outcome: Outcome = "INCONCLUSIVE" if not total else "PASS" if value >= minimum - TOLERANCE else "FAIL"
        # Every model meets a minimum of 0: there is nothing to test.
        z = None if minimum == 0 else score(correct, total, minimum)
        interval = wilson_interval(correct, total, self.level)
        return self._check(bound, total, value, minimum, outcome, reason, z, interval, accuracy=minimum)

    def increase(self, maximum: float) -> Check:
        base = self.predictions.base_error_rate
        if base is None:
            return self._not_evaluated("max_increase", maximum, "no base error rate")
        minimum = max(0.0, 1 - base - maximum)
        return self.accuracy("max_increase", minimum, f"base error rate {base:.1%} plus max_increase")

    def drop(self, bound: str, maximum: float) -> Check:
        if self.comparison is None:
            return self._not_evaluated(bound, maximum, "no baseline yet")
        lost, gained, total = len(self.comparison.lost), len(self.comparison.gained), self.comparison.total
        drop, baseline = (lost - gained) / total, self.comparison.correct / total
        outcome: Outcome = "PASS" if drop <= maximum + TOLERANCE else "FAIL"
        default = bound == "no_regression"
        reason = "no regression from the baseline" if default else f"baseline {baseline:.1%} less {bound}"
        # The same model cannot have dropped: there is nothing to test.
        z = None if self.predictions.same_model else paired_score(lost, gained, total, maximum)
        interval, required = paired_interval(lost, gained, total, self.level), max(0.0, baseline - maximum)
        return self._check(bound, total, drop, maximum, outcome, reason, z, interval, accuracy=required)

    def flips(self, maximum: int) -> Check:
        if self.comparison is None:
            return self._not_evaluated("max_flips", maximum, "no baseline yet")
        flips, total = len(self.comparison.lost), self.comparison.total
        outcome: Outcome = "PASS" if flips <= maximum else "FAIL"
        untested = self.predictions.same_model or maximum >= total
        z = None if untested else score(flips, total, maximum / total)
        low, high = wilson_interval(flips, total, self.level)
        return self._check("max_flips", total, flips, maximum, outcome, "max_flips", z, (low * total, high * total))

    def _not_evaluated(self, bound: str, limit: float, why: str) -> Check:
        """The check of a bound without the value that it refers to, such as a baseline on a first run."""
        return self._check(bound, 0, 0.0, limit, "PASS", f"{bound} not evaluated: {why}")

    def _check(
        self,
        bound: str,
        total: int,
        measured: float,
        limit: float,
        outcome: Outcome,
        reason: str,
        z: float | None = None,
        interval: tuple[float, float] = (-1.0, 1.0),
        accuracy: float = 0.0,
    ) -> Check:
        p = None if self.confidence is None or z is None else two_sided_p(z)
        return Check(bound, self.name, total, measured, limit, accuracy, self.level, interval, outcome, reason, p)
