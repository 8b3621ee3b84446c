"""A verdict in one sentence: the message of a failed test."""

from collections import Counter
from collections.abc import Sequence

from pytest_defuse.gate.checks import NO_REGRESSION, Check
from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.gate.results import ScenarioResult, Verdict
from pytest_defuse.statistics.accuracy import Accuracy

ERRORS_SHOWN = 3
"""Most frequent wrong classes in the sentence: it should fit on a few terminal lines. Our choice."""


def sentence(verdict: Verdict) -> str:
    """Accuracy with interval, the bounds that decided, changes from the baseline, and the most frequent errors."""
    name = verdict.name
    if isinstance(verdict, ScenarioResult):
        name = f"scenario {verdict.id} (label {verdict.label!r})"
    shown = [check for check in verdict.checks if check.outcome != "PASS"] or list(verdict.checks)
    checks = [_check(check) for check in shown] or ["no bound was requested"]
    # "accuracy 90% is below the bound ..." needs no separator; a drop or flips have their own subject.
    separator = " " if shown and _continues_accuracy(shown[0]) else "; "
    parts = [*checks, *_comparison(verdict), *errors(verdict.predictions)]
    return f"{name}: accuracy {verdict.accuracy}{separator}{'; '.join(parts)}."


def errors(predictions: LabelledPredictions) -> Sequence[str]:
    """The most frequent errors, in words; empty without errors."""
    one_label = len(set(predictions.labels)) == 1
    counts = Counter(
        f"{predicted!r}" if one_label else f"{label!r} as {predicted!r}"
        for label, predicted in zip(predictions.labels, predictions.predicted, strict=True)
        if label != predicted
    ).most_common(ERRORS_SHOWN)
    if not counts:
        return ()
    names = ", ".join(f"{name} ({count})" for name, count in counts)
    return (f"misclassified as {names}" if one_label else f"most frequent errors: {names}",)


def _check(check: Check) -> str:
    if _not_evaluated(check):
        words = check.reason
    elif check.bound == "max_flips":
        words = _flips(check)
    else:
        words = _drop(check) if _is_drop(check) else _accuracy(check)
    if check.outcome == "INCONCLUSIVE":
        words += f": INCONCLUSIVE{_images_needed(check)}"
    return f"class {check.group!r}: {words}" if check.group else words


def _accuracy(check: Check) -> str:
    accuracy = Accuracy(round(check.measured * check.total), check.total, check.confidence)
    verb = {"PASS": "meets", "FAIL": "is below", "INCONCLUSIVE": "is not significantly different from"}[check.outcome]
    # The sentence begins with the accuracy on all images.
    return f"{f'accuracy {accuracy} ' if check.group else ''}{verb} the bound {check.limit:.1%} ({check.reason})"


def _drop(check: Check) -> str:
    low, high = check.interval
    if check.bound == NO_REGRESSION:
        verb = {"PASS": "is no regression", "FAIL": "is a regression", "INCONCLUSIVE": "may be a regression"}
    else:
        limit = f"{check.bound} {check.limit:.1%}"
        verb = {"PASS": f"is within {limit}", "FAIL": f"is more than {limit}", "INCONCLUSIVE": f"may exceed {limit}"}
    interval = f"{check.confidence * 100:g}% interval {low:.1%} to {high:.1%}"
    return f"a drop of {check.measured:.1%} from the baseline ({interval}) {verb[check.outcome]}"


def _flips(check: Check) -> str:
    low, high = check.interval
    verb = {"PASS": "within", "FAIL": "more than", "INCONCLUSIVE": "which may exceed"}[check.outcome]
    interval = f" ({check.confidence * 100:g}% interval {low:.1f} to {high:.1f})" if check.p is not None else ""
    flips = f"{check.measured:.0f} of {check.total} flipped from correct to wrong"
    return f"{flips}{interval}, {verb} max_flips {check.limit}"


def _not_evaluated(check: Check) -> bool:
    return not check.total and (check.outcome == "PASS" or check.bound == "per_class")


def _continues_accuracy(check: Check) -> bool:
    """Whether a check is about the accuracy at the start of the sentence."""
    return not (check.group or _is_drop(check) or check.bound == "max_flips" or _not_evaluated(check))


def _is_drop(check: Check) -> bool:
    return check.bound in ("max_drop", "max_relative_drop") or check.reason == "no regression from the baseline"


def _images_needed(check: Check) -> str:
    if not check.total:
        return ", there are no images"
    if check.images_needed is None:
        return ", and no number of images would decide: the value equals the bound"
    return f", about {check.images_needed:,} images would decide"


def _comparison(verdict: Verdict) -> Sequence[str]:
    comparison, predictions = verdict.comparison, verdict.predictions
    if comparison and predictions.repeated:
        return ("the baseline is from the same model",)
    if not comparison or not (comparison.lost or comparison.gained):
        return ()
    lost, gained = len(comparison.lost), len(comparison.gained)
    sentence = f"compared with the baseline {lost} lost, {gained} gained (McNemar p = {comparison.p:.2g})"
    return (sentence, *([nondeterminism(predictions)] if predictions.same_model else []))


def nondeterminism(predictions: LabelledPredictions) -> str:
    """That the same model now predicts other classes than in the baseline."""
    return (
        f"the baseline is from the same model, which now predicts another class for {predictions.changed} of "
        f"{predictions.total} images: it is not deterministic"
    )
