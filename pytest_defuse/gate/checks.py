"""Bounds evaluated on labelled predictions. The results are plain values, ready for JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.statistics.accuracy import DEFAULT_CONFIDENCE, wilson_interval
from pytest_defuse.statistics.significance import (
    critical_value,
    images_needed,
    mcnemar,
    paired_interval,
    paired_score,
    score,
    two_sided_p,
)

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
WORST_FIRST: tuple[Outcome, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
NO_REGRESSION = "no_regression"
"""The bound that is evaluated where none is set."""
TOLERANCE = 1e-12
"""A value equal to its limit passes: 1 - 0.9 and 9/10 differ by rounding of about 1e-16."""


@dataclass(frozen=True)
class Comparison:
    """A model compared with the baseline on the same images.

    Attributes:
        total: images that both models classified; the baseline classifies ``correct`` of them correctly.
        lost, gained: positions of images that only the baseline, only this model classifies correctly.
        p: McNemar's exact test of ``lost`` against ``gained``.
    """

    total: int
    correct: int
    lost: list[int]
    gained: list[int]
    p: float


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
        p: two-sided, of the score test that the true value equals ``limit``; None without ``confidence`` in the bounds,
            and where the observed value decides.
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
    images_needed: int | None = None

    @property
    def requested(self) -> bool:
        """Whether somebody set the bound, in the scenario, a marker or an option."""
        return self.bound != NO_REGRESSION


def compare(predictions: LabelledPredictions) -> Comparison | None:
    """Compare predictions with the baseline's; None if the baseline contains none of the images."""
    triples = zip(predictions.labels, predictions.predicted, predictions.baseline, strict=True)
    rows = [(index, *row) for index, row in enumerate(triples) if row[2] is not None]
    if not rows:
        return None
    lost = [index for index, label, predicted, baseline in rows if baseline == label != predicted]
    gained = [index for index, label, predicted, baseline in rows if predicted == label != baseline]
    correct = sum(label == baseline for _, label, _, baseline in rows)
    return Comparison(len(rows), correct, lost, gained, mcnemar(len(lost), len(gained)))


def evaluate(
    predictions: LabelledPredictions, bounds: Bounds, first_run: bool = False, classes: Sequence[str] = ()
) -> tuple[Check, ...]:
    """Evaluate every bound on one set of images; nothing else in the run changes the outcomes.

    With ``confidence`` in the bounds, a check is PASS or FAIL only if its p-value is at most 1 - confidence, else
    INCONCLUSIVE. If even the worst predictions would not be a significant FAIL, the observed value decides.

    Args:
        first_run: whether a bound on the change from the baseline passes where there is no baseline yet, and is
            evaluated on the images that the baseline contains.
        classes: that ``per_class`` requires images of, also if no label names them.

    Raises:
        DefuseError: the baseline lacks images of a bound that needs it, such as no regression without a recorded
            accuracy; or ``max_increase`` is the only bound on images that are not a failure mode.
    """
    groups = {"": predictions}
    if bounds.per_class:
        groups |= {name: predictions.of_class(name) for name in sorted({*predictions.labels, *classes})}
    return tuple(
        check
        for name, part in groups.items()
        for check in _Group(name, part, bounds.confidence, first_run).checks(bounds)
    )


class _Group:
    """The images of one class, or all images; ``checks`` evaluates the bounds on them, other methods one bound each."""

    def __init__(self, name: str, predictions: LabelledPredictions, confidence: float | None, first_run: bool) -> None:
        self.name, self.predictions, self.confidence, self.first_run = name, predictions, confidence, first_run
        self.level = confidence or DEFAULT_CONFIDENCE
        self.comparison = compare(predictions)
        self.lacking = 0 if first_run else predictions.baseline.count(None)

    def checks(self, bounds: Bounds) -> list[Check]:
        if self.name and not self.predictions.total:
            return [self._check("per_class", 0, 0.0, 0.0, "INCONCLUSIVE", "per_class cannot be judged")]
        baseline = self.comparison.correct / self.comparison.total if self.comparison else 0
        evaluations: dict[str, Callable[[Any], Check | None]] = {
            "min_accuracy": lambda limit: self.accuracy("min_accuracy", limit, "min_accuracy"),
            "max_error_rate": lambda rate: self.accuracy("max_error_rate", 1 - rate, f"max_error_rate {rate:.1%}"),
            "max_increase": self.increase,
            "max_drop": lambda limit: self.drop("max_drop", limit),
            "max_relative_drop": lambda share: self.drop("max_relative_drop", share * baseline),
            "max_flips": self.flips,
        }
        limits = {name: getattr(bounds, name) for name in evaluations}
        checks = [evaluations[name](limit) for name, limit in limits.items() if limit is not None]
        if evaluated := [check for check in checks if check is not None]:
            return evaluated
        if checks:
            raise DefuseError(
                "max_increase needs the error rate of the group in which a failure mode was found, which these images "
                "do not have: set another bound such as min_accuracy."
            )
        if self.comparison:
            return [self.drop(NO_REGRESSION, 0.0)]
        if self.predictions.recorded is not None:
            lacking = "; the baseline does not contain these images" if self.predictions.not_in_baseline else ""
            reason = f"no regression from discovery{lacking}"
            return [self.accuracy(NO_REGRESSION, self.predictions.recorded, reason)]
        return [self._without_baseline(NO_REGRESSION, 0.0)]

    def accuracy(self, bound: str, minimum: float, reason: str) -> Check:
        correct, total = self.predictions.correct, self.predictions.total
        value = correct / total if total else 0.0
        outcome: Outcome = "INCONCLUSIVE" if not total else "PASS" if value >= minimum - TOLERANCE else "FAIL"
        # Every model meets a minimum of 0: there is nothing to test.
        z = (-score(correct, total, minimum), -score(0, total, minimum)) if minimum else None
        interval = wilson_interval(correct, total, self.level)
        return self._check(bound, total, value, minimum, outcome, reason, z, interval, accuracy=minimum)

    def increase(self, maximum: float) -> Check | None:
        """None for images that are not a failure mode: there is no group to compare with."""
        base = self.predictions.base_error_rate
        if base is None:
            return None
        minimum = max(0.0, 1 - base - maximum)
        return self.accuracy("max_increase", minimum, f"base error rate {base:.1%} plus max_increase")

    def drop(self, bound: str, maximum: float) -> Check:
        if self.comparison is None or self.lacking:
            return self._without_baseline(bound, maximum)
        lost, gained, total = len(self.comparison.lost), len(self.comparison.gained), self.comparison.total
        drop, baseline = (lost - gained) / total, self.comparison.correct / total
        outcome: Outcome = "PASS" if drop <= maximum + TOLERANCE else "FAIL"
        default = bound == NO_REGRESSION
        reason = "no regression from the baseline" if default else f"baseline {baseline:.1%} less {bound}"
        worst = paired_score(self.comparison.correct, 0, total, maximum)
        # The same model with equal predictions has not dropped: there is nothing to test.
        z = None if self.predictions.repeated else (paired_score(lost, gained, total, maximum), worst)
        interval, required = paired_interval(lost, gained, total, self.level), max(0.0, baseline - maximum)
        return self._check(bound, total, drop, maximum, outcome, reason, z, interval, accuracy=required)

    def flips(self, maximum: int) -> Check:
        if self.comparison is None or self.lacking:
            return self._without_baseline("max_flips", maximum)
        flips, total = len(self.comparison.lost), self.comparison.total
        outcome: Outcome = "PASS" if flips <= maximum else "FAIL"
        untested = self.predictions.repeated or maximum >= total
        share, worst = maximum / total, self.comparison.correct
        z = None if untested else (score(flips, total, share), score(worst, total, share))
        low, high = wilson_interval(flips, total, self.level)
        return self._check("max_flips", total, flips, maximum, outcome, "max_flips", z, (low * total, high * total))

    def _without_baseline(self, bound: str, limit: float) -> Check:
        if not self.first_run:
            needs = f"{bound} needs a baseline"
            if self.comparison:
                needs += f", which lacks {self.lacking} of {self.predictions.total} images"
            elif bound == NO_REGRESSION:
                needs = f"no accuracy was recorded {f'for class {self.name!r} ' if self.name else ''}to compare with"
            raise DefuseError(
                f"{needs}: set a bound such as min_accuracy, or save a baseline with --defuse-save-baseline FILE on "
                "the commit to compare with and name it with --defuse-baseline FILE; --defuse-first-run accepts that "
                "there is none yet."
            )
        return self._check(bound, 0, 0.0, limit, "PASS", f"{bound} not evaluated: no baseline yet")

    def _check(
        self,
        bound: str,
        total: int,
        measured: float,
        limit: float,
        outcome: Outcome,
        reason: str,
        z: tuple[float, float] | None = None,
        interval: tuple[float, float] = (-1.0, 1.0),
        accuracy: float = 0.0,
    ) -> Check:
        """A check; ``z`` has the score statistics of these predictions and of the worst ones, positive for a miss."""
        check = Check(bound, self.name, total, measured, limit, accuracy, self.level, interval, outcome, reason)
        if self.confidence is None or z is None or not total:
            return check
        if z[1] < critical_value(self.confidence):
            why = "no outcome of so few images would be significant, so the observed value decides"
            return replace(check, reason=f"{reason}; {why}")
        p, alpha = two_sided_p(z[0]), 1 - self.confidence
        if p <= alpha:
            return replace(check, p=p)
        return replace(check, p=p, outcome="INCONCLUSIVE", images_needed=images_needed(total, p, alpha))
