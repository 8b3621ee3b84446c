"""A model's answers held against bounds and against a baseline. What comes of it is plain values, ready for JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pytest_defuse.scenarios.bounds import Bounds, Outcome
from pytest_defuse.statistics.accuracy import wilson_interval
from pytest_defuse.statistics.significance import (
    benjamini_hochberg,
    images_to_tell,
    mcnemar,
    paired_interval,
    paired_score,
    score,
    two_sided_p,
)

DEFAULT_CONFIDENCE = 0.95
WORST_FIRST: tuple[Outcome, ...] = ("fails", "unsure", "holds")
ASKING = ("min_accuracy", "max_error_rate", "max_increase", "max_drop", "max_relative_drop", "max_flips")
"""The bounds of which any makes up for the default, no regression."""
ROUNDING = 1e-12
"""A bound that is just reached holds, whatever floating point makes of the last digit."""


@dataclass(frozen=True)
class Answers:
    """What a model says of labelled images, and what is known from earlier.

    Attributes:
        labels, predicted: class names, one an image.
        before: the baseline's class names; None where the baseline has not seen the image.
        same_model: whether the baseline is of the same weights.
        recorded: accuracy when the images were found, in [0, 1]; None where nothing was recorded.
        base_error_rate: of the group that the images are a failure mode of, in [0, 1]; None for other images.
    """

    labels: Sequence[str]
    predicted: Sequence[str]
    before: Sequence[str | None]
    same_model: bool = False
    recorded: float | None = None
    base_error_rate: float | None = None

    @property
    def correct(self) -> int:
        """How many are right."""
        return sum(map(str.__eq__, self.labels, self.predicted))

    def of_class(self, name: str) -> "Answers":
        """The images of one class."""
        chosen = [index for index, label in enumerate(self.labels) if label == name]
        return Answers(
            [name] * len(chosen),
            [self.predicted[index] for index in chosen],
            [self.before[index] for index in chosen],
            self.same_model,
            base_error_rate=self.base_error_rate,
        )


@dataclass(frozen=True)
class Comparison:
    """A model against the baseline on the same images.

    Attributes:
        images: how many both have judged; ``correct`` of them the baseline had right.
        predicted: the baseline's class names, one an image of the set; None where the baseline has not seen it.
        lost: flips, images that the baseline had right and this model has wrong, counted from 0.
        gained: images that the baseline had wrong and this model has right.
        same_model: whether both are the same weights.
        p: McNemar's exact test of ``lost`` against ``gained``.
        adjusted_p: the same after Benjamini and Hochberg, over all scenarios that were judged at once.
    """

    images: int
    correct: int
    predicted: list[str | None]
    lost: list[int]
    gained: list[int]
    same_model: bool
    p: float
    adjusted_p: float


@dataclass(frozen=True)
class Check:
    """One bound held against one group of images.

    Attributes:
        bound: ``min_accuracy``, ``max_error_rate``, ``max_increase``, ``max_drop``, ``max_relative_drop``,
            ``max_flips`` or ``no_regression``.
        group: the class whose images are counted; empty for all images.
        images: how many they are; for a drop and for flips, those that the baseline has seen.
        measured: an accuracy in [0, 1], a drop in accuracy in [-1, 1], or a number of flips.
        limit: what the bound allows, in the unit of ``measured``.
        accuracy: the accuracy that this asks for, in [0, 1]; 0 where it asks for none.
        confidence: of the interval, in (0, 1).
        interval: Wilson's for an accuracy and (times ``images``) for flips, Tango's for a drop.
        outcome: ``unsure`` means that there are too few images to tell; it does not fail.
        reason: where the limit comes from, in words.
        p: two-sided, from the score test whether ``limit`` is the truth; None where ``confidence`` was not asked for.
        adjusted_p: the same after Benjamini and Hochberg, over all checks that were judged at once.
        enough: images that would tell if their shares stayed; None where no number would, or none is wanted.
    """

    bound: str
    group: str
    images: int
    measured: float
    limit: float
    accuracy: float
    confidence: float
    interval: tuple[float, float]
    outcome: Outcome
    reason: str
    p: float | None = None
    adjusted_p: float | None = None
    enough: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of all bounds."""

    checks: tuple[Check, ...]

    @property
    def decisive(self) -> Check | None:
        """Of the checks with the worst outcome, the one that asks for most; None where nothing was asked."""
        return min(self.checks, key=lambda c: (WORST_FIRST.index(c.outcome), -c.accuracy), default=None)

    @property
    def outcome(self) -> Outcome:
        """The worst outcome."""
        return self.decisive.outcome if self.decisive else "holds"

    @property
    def bound(self) -> float:
        """The accuracy that the decisive check asks for, in [0, 1]; 0 where it asks for none."""
        return self.decisive.accuracy if self.decisive else 0.0

    @property
    def reason(self) -> str:
        """Where the decisive bound comes from, in words."""
        return self.decisive.reason if self.decisive else ""


def compare(answers: Answers) -> Comparison | None:
    """The answers against the baseline's; None where the baseline has seen none of the images."""
    rows = list(zip(answers.labels, answers.predicted, answers.before, strict=True))
    seen = [index for index, (_, _, before) in enumerate(rows) if before is not None]
    if not seen:
        return None
    was = {index for index in seen if rows[index][2] == rows[index][0]}
    now = {index for index in seen if rows[index][1] == rows[index][0]}
    p = mcnemar(len(was - now), len(now - was))
    return Comparison(
        images=len(seen),
        correct=len(was),
        predicted=list(answers.before),
        lost=sorted(was - now),
        gained=sorted(now - was),
        same_model=answers.same_model,
        p=p,
        adjusted_p=p,
    )


def judge(answers: Answers, bounds: Bounds) -> list[Check]:
    """Hold answers against every bound, by themselves: :func:`settle` makes up for many being judged at once."""
    groups = {"": answers}
    if bounds.per_class:
        groups |= {name: answers.of_class(name) for name in sorted(set(answers.labels))}
    return [check for name, group in groups.items() for check in _checks(name, group, bounds)]


def settle(families: Sequence[Sequence[Check]]) -> list[Verdict]:
    """Verdicts on checks that are judged at once, one for each of ``families``.

    Where ``confidence`` was asked for, a check is decided only if its p-value is below 1 - confidence also after
    Benjamini and Hochberg's adjustment over all of them, those on the other side of their limit counted with a
    p-value of 1; else there are too few images to tell.
    """
    tested = [check for family in families for check in family if check.p is not None]
    # Misses are adjusted among misses, so that no other model's success makes one of them surer.
    adjusted = {
        outcome: benjamini_hochberg([check.p or 0.0 if check.outcome == outcome else 1.0 for check in tested])
        for outcome in WORST_FIRST
    }
    settled = iter([_settled(check, adjusted[check.outcome][index]) for index, check in enumerate(tested)])
    return [Verdict(tuple(check if check.p is None else next(settled) for check in family)) for family in families]


def adjust(comparisons: Sequence[Comparison | None]) -> list[Comparison | None]:
    """Comparisons that are made at once, with their p-values adjusted."""
    adjusted = iter(benjamini_hochberg([comparison.p for comparison in comparisons if comparison]))
    return [replace(comparison, adjusted_p=next(adjusted)) if comparison else None for comparison in comparisons]


def _settled(check: Check, adjusted_p: float) -> Check:
    assert check.p is not None
    alpha = 1 - check.confidence
    if adjusted_p <= alpha:
        return replace(check, adjusted_p=adjusted_p)
    # What p must be below, at this check's rank among all.
    enough = images_to_tell(check.images, check.p, alpha * check.p / adjusted_p)
    return replace(check, adjusted_p=adjusted_p, outcome="unsure", enough=enough)


def _checks(group: str, answers: Answers, bounds: Bounds) -> Iterator[Check]:
    comparison = compare(answers)
    if bounds.min_accuracy is not None:
        yield _accuracy("min_accuracy", group, answers, bounds.min_accuracy, "min_accuracy", bounds.confidence)
    if bounds.max_error_rate is not None:
        least, reason = 1 - bounds.max_error_rate, f"max_error_rate {bounds.max_error_rate:.1%}"
        yield _accuracy("max_error_rate", group, answers, least, reason, bounds.confidence)
    if bounds.max_increase is not None:
        yield _increase(group, answers, bounds.max_increase, bounds.confidence)
    if bounds.max_drop is not None:
        yield _drop("max_drop", group, comparison, bounds.max_drop, bounds.confidence)
    if bounds.max_relative_drop is not None:
        most = bounds.max_relative_drop * (comparison.correct / comparison.images if comparison else 0)
        yield _drop("max_relative_drop", group, comparison, most, bounds.confidence)
    if bounds.max_flips is not None:
        yield _flips(group, comparison, bounds.max_flips, bounds.confidence)
    if all(getattr(bounds, name) is None for name in ASKING):
        if comparison:
            yield _drop("no_regression", group, comparison, 0.0, bounds.confidence)
        elif answers.recorded is not None:
            reason = "no regression from discovery"
            yield _accuracy("no_regression", group, answers, answers.recorded, reason, bounds.confidence)


def _accuracy(bound: str, group: str, answers: Answers, least: float, reason: str, confidence: float | None) -> Check:
    total = len(answers.labels)
    share = answers.correct / total if total else 0.0
    level = confidence or DEFAULT_CONFIDENCE
    return Check(
        bound=bound,
        group=group,
        images=total,
        measured=share,
        limit=least,
        accuracy=least,
        confidence=level,
        interval=wilson_interval(answers.correct, total, level),
        outcome="unsure" if not total else "holds" if share >= least - ROUNDING else "fails",
        reason=reason,
        # A bound of 0 asks for nothing.
        p=None if confidence is None or least == 0 else two_sided_p(score(answers.correct, total, least)),
    )


def _increase(group: str, answers: Answers, most: float, confidence: float | None) -> Check:
    base = answers.base_error_rate
    if base is None:
        return _unseen("max_increase", group, most, confidence, "a group of its own")
    reason = f"base error rate {base:.1%} plus max_increase"
    return _accuracy("max_increase", group, answers, max(0.0, 1 - base - most), reason, confidence)


def _drop(bound: str, group: str, comparison: Comparison | None, most: float, confidence: float | None) -> Check:
    if comparison is None:
        return _unseen(bound, group, most, confidence)
    lost, gained, total = len(comparison.lost), len(comparison.gained), comparison.images
    drop, before = (lost - gained) / total, comparison.correct / total
    level = confidence or DEFAULT_CONFIDENCE
    return Check(
        bound=bound,
        group=group,
        images=total,
        measured=drop,
        limit=most,
        accuracy=max(0.0, before - most),
        confidence=level,
        interval=paired_interval(lost, gained, total, level),
        outcome="holds" if drop <= most + ROUNDING else "fails",
        reason="no regression from the baseline" if bound == "no_regression" else f"baseline {before:.1%} less {bound}",
        # The same model cannot have dropped.
        p=None if confidence is None or comparison.same_model else two_sided_p(paired_score(lost, gained, total, most)),
    )


def _flips(group: str, comparison: Comparison | None, most: int, confidence: float | None) -> Check:
    if comparison is None:
        return _unseen("max_flips", group, most, confidence)
    flips, total = len(comparison.lost), comparison.images
    level = confidence or DEFAULT_CONFIDENCE
    low, high = wilson_interval(flips, total, level)
    certain = confidence is None or comparison.same_model or most >= total
    return Check(
        bound="max_flips",
        group=group,
        images=total,
        measured=flips,
        limit=most,
        accuracy=0.0,
        confidence=level,
        interval=(low * total, high * total),
        outcome="holds" if flips <= most else "fails",
        reason="max_flips",
        p=None if certain else two_sided_p(score(flips, total, most / total)),
    )


def _unseen(bound: str, group: str, limit: float, confidence: float | None, missing: str = "a baseline yet") -> Check:
    """A bound against something that is not there, such as a baseline: a first run is no error."""
    level = confidence or DEFAULT_CONFIDENCE
    reason = f"{bound}, without {missing}"
    return Check(bound, group, 0, 0.0, limit, 0.0, level, (-1.0, 1.0), "holds", reason)
