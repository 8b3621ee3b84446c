"""Bounds evaluated on labelled predictions. The results are plain values, ready for JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
EXPLICIT_BOUNDS = ("min_accuracy", "max_error_rate", "max_increase", "max_drop", "max_relative_drop", "max_flips")
"""Any of these replaces the default bound, no regression (:class:`~pytest_defuse.scenarios.bounds.Bounds`)."""
TOLERANCE = 1e-12
"""A value equal to its limit passes: 1 - 0.9 and 9/10 differ by rounding of about 1e-16."""


@dataclass(frozen=True)
class Comparison:
    """A model compared with the baseline on the same images.

    Attributes:
        total: images that both models classified; the baseline classifies ``correct`` of them correctly.
        lost: flips, positions of images that the baseline classifies correctly and this model does not.
        gained: positions of images that this model classifies correctly and the baseline does not.
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
        bound: ``min_accuracy``, ``max_error_rate``, ``max_increase``, ``max_drop``, ``max_relative_drop``,
            ``max_flips`` or ``no_regression``.
        group: the class whose images are counted; empty for all images.
        total: number of images; for a drop and for flips, of those that the baseline contains.
        measured: an accuracy in [0, 1], a drop in accuracy in [-1, 1], or a number of flips.
        limit: the bound's value, in the unit of ``measured``.
        accuracy: the accuracy that the bound requires, in [0, 1]; 0 if it requires none.
        confidence: of the interval, in (0, 1).
        interval: Wilson's for an accuracy and (times ``total``) for flips, Tango's for a drop.
        outcome: ``INCONCLUSIVE`` if the images are too few to decide.
        reason: the origin of the limit, in words.
        p: two-sided, of the score test that the true value equals ``limit``; None without ``confidence`` in the bounds.
        adjusted_p: ``p`` after Benjamini and Hochberg's adjustment over all checks of the run.
        images_needed: how many images would decide if the measured shares stayed the same; None if the outcome is
            decided, or no number of images would decide it.
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
    rows = list(zip(predictions.labels, predictions.predicted, predictions.baseline, strict=True))
    common = [index for index, (_, _, baseline) in enumerate(rows) if baseline is not None]
    if not common:
        return None
    baseline_correct = {index for index in common if rows[index][2] == rows[index][0]}
    model_correct = {index for index in common if rows[index][1] == rows[index][0]}
    lost, gained = sorted(baseline_correct - model_correct), sorted(model_correct - baseline_correct)
    p = mcnemar(len(lost), len(gained))
    return Comparison(len(common), len(baseline_correct), lost, gained, p, adjusted_p=p)


def evaluate(predictions: LabelledPredictions, bounds: Bounds) -> list[Check]:
    """Evaluate every bound on its own; :func:`decide` then adjusts for multiple testing."""
    groups = {"": predictions}
    if bounds.per_class:
        groups |= {name: predictions.of_class(name) for name in sorted(set(predictions.labels))}
    return [check for name, group in groups.items() for check in _checks(name, group, bounds)]


def decide(families: Sequence[Sequence[Check]]) -> list[tuple[Check, ...]]:
    """Adjust the checks of one run for multiple testing; returns them in the same families.

    With ``confidence`` in the bounds, a check is PASS or FAIL only if its p-value is at most 1 - confidence after
    Benjamini and Hochberg's adjustment over all checks, where those on the other side of their limit count with a
    p-value of 1. All others are INCONCLUSIVE.
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


def _checks(group: str, predictions: LabelledPredictions, bounds: Bounds) -> Iterator[Check]:
    comparison, confidence = compare(predictions), bounds.confidence
    if bounds.min_accuracy is not None:
        yield _accuracy("min_accuracy", group, predictions, bounds.min_accuracy, "min_accuracy", confidence)
    if bounds.max_error_rate is not None:
        minimum, reason = 1 - bounds.max_error_rate, f"max_error_rate {bounds.max_error_rate:.1%}"
        yield _accuracy("max_error_rate", group, predictions, minimum, reason, confidence)
    if bounds.max_increase is not None:
        yield _increase(group, predictions, bounds.max_increase, confidence)
    if bounds.max_drop is not None:
        yield _drop("max_drop", group, predictions, comparison, bounds.max_drop, confidence)
    if bounds.max_relative_drop is not None:
        maximum = bounds.max_relative_drop * (comparison.correct / comparison.total if comparison else 0)
        yield _drop("max_relative_drop", group, predictions, comparison, maximum, confidence)
    if bounds.max_flips is not None:
        yield _flips(group, predictions, comparison, bounds.max_flips, confidence)
    if all(getattr(bounds, name) is None for name in EXPLICIT_BOUNDS):
        if comparison:
            yield _drop("no_regression", group, predictions, comparison, 0.0, confidence)
        elif predictions.recorded is not None:
            reason = "no regression from discovery"
            yield _accuracy("no_regression", group, predictions, predictions.recorded, reason, confidence)


def _accuracy(
    bound: str, group: str, predictions: LabelledPredictions, minimum: float, reason: str, confidence: float | None
) -> Check:
    correct, total = predictions.correct, predictions.total
    accuracy = correct / total if total else 0.0
    level = confidence or DEFAULT_CONFIDENCE
    return Check(
        bound=bound,
        group=group,
        total=total,
        measured=accuracy,
        limit=minimum,
        accuracy=minimum,
        confidence=level,
        interval=wilson_interval(correct, total, level),
        outcome="INCONCLUSIVE" if not total else "PASS" if accuracy >= minimum - TOLERANCE else "FAIL",
        reason=reason,
        # Every model meets a minimum of 0: there is nothing to test.
        p=None if confidence is None or minimum == 0 else two_sided_p(score(correct, total, minimum)),
    )


def _increase(group: str, predictions: LabelledPredictions, maximum: float, confidence: float | None) -> Check:
    base = predictions.base_error_rate
    if base is None:
        return _not_evaluated("max_increase", group, maximum, confidence, "no base error rate")
    reason = f"base error rate {base:.1%} plus max_increase"
    return _accuracy("max_increase", group, predictions, max(0.0, 1 - base - maximum), reason, confidence)


def _drop(
    bound: str,
    group: str,
    predictions: LabelledPredictions,
    comparison: Comparison | None,
    maximum: float,
    confidence: float | None,
) -> Check:
    if comparison is None:
        return _not_evaluated(bound, group, maximum, confidence, "no baseline yet")
    lost, gained, total = len(comparison.lost), len(comparison.gained), comparison.total
    drop, baseline = (lost - gained) / total, comparison.correct / total
    level = confidence or DEFAULT_CONFIDENCE
    # The same weights cannot have dropped: there is nothing to test.
    tested = confidence is not None and not predictions.same_model
    return Check(
        bound=bound,
        group=group,
        total=total,
        measured=drop,
        limit=maximum,
        accuracy=max(0.0, baseline - maximum),
        confidence=level,
        interval=paired_interval(lost, gained, total, level),
        outcome="PASS" if drop <= maximum + TOLERANCE else "FAIL",
        reason="no regression from the baseline"
        if bound == "no_regression"
        else f"baseline {baseline:.1%} less {bound}",
        p=two_sided_p(paired_score(lost, gained, total, maximum)) if tested else None,
    )


def _flips(
    group: str,
    predictions: LabelledPredictions,
    comparison: Comparison | None,
    maximum: int,
    confidence: float | None,
) -> Check:
    if comparison is None:
        return _not_evaluated("max_flips", group, maximum, confidence, "no baseline yet")
    flips, total = len(comparison.lost), comparison.total
    level = confidence or DEFAULT_CONFIDENCE
    low, high = wilson_interval(flips, total, level)
    tested = confidence is not None and not predictions.same_model and maximum < total
    return Check(
        bound="max_flips",
        group=group,
        total=total,
        measured=flips,
        limit=maximum,
        accuracy=0.0,
        confidence=level,
        interval=(low * total, high * total),
        outcome="PASS" if flips <= maximum else "FAIL",
        reason="max_flips",
        p=two_sided_p(score(flips, total, maximum / total)) if tested else None,
    )


def _not_evaluated(bound: str, group: str, limit: float, confidence: float | None, why: str) -> Check:
    """A bound without the value that it refers to, such as a baseline on a first run."""
    level = confidence or DEFAULT_CONFIDENCE
    return Check(bound, group, 0, 0.0, limit, 0.0, level, (-1.0, 1.0), "PASS", f"{bound} not evaluated: {why}")
