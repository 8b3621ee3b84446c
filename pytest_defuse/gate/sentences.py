"""Checks in words: what a failed test prints. Every number in them is in the results."""

from collections import Counter
from collections.abc import Sequence

from pytest_defuse.gate.checks import Answers, Check, Comparison, Verdict
from pytest_defuse.statistics.accuracy import Accuracy


def sentence(name: str, answers: Answers, accuracy: Accuracy, verdict: Verdict, comparison: Comparison | None) -> str:
    """Accuracy, interval, what became of the bounds, the baseline, and what images were taken for.

    Args:
        name: what the images are, such as ``scenario 3-as-5-a1b2c3 (label '3')``.
    """
    told = [check for check in verdict.checks if check.outcome != "holds"] or list(verdict.checks)
    checks = [_in_words(check) for check in told] or ["was held against no bound"]
    # What follows an accuracy goes on in the same breath; a drop or flips have a subject of their own.
    link = " " if not told or _of_all_images(told[0]) else "; "
    said = [f"accuracy {accuracy}{link}{checks[0]}", *checks[1:], *_compared(comparison), *_taken(answers)]
    return f"{name}: {'; '.join(said)}."


def _in_words(check: Check) -> str:
    said = _flips(check) if check.bound == "max_flips" else _drop(check) if _is_drop(check) else _accuracy(check)
    if check.outcome == "unsure":
        said += ": too few images to tell" + _enough(check)
    return f"class {check.group!r}: {said}" if check.group else said


def _accuracy(check: Check) -> str:
    if not check.images and check.outcome == "holds":
        return f"was not held against {check.reason}"
    measured = ""
    if check.group:
        measured = f"accuracy {Accuracy(round(check.measured * check.images), check.images, check.confidence)} "
    verb = {"holds": "holds", "fails": "is below", "unsure": "cannot be told from"}[check.outcome]
    return f"{measured}{verb} the bound {check.limit:.1%} ({check.reason})"


def _drop(check: Check) -> str:
    if not check.images:
        return f"was not held against {check.reason}"
    low, high = check.interval
    bound = "is no regression" if check.bound == "no_regression" else f"is within {check.bound} {check.limit:.1%}"
    verb = {
        "holds": bound,
        "fails": bound.replace("no regression", "a regression").replace("within", "more than"),
        "unsure": bound.replace("is ", "may or may not be "),
    }[check.outcome]
    interval = f"{check.confidence * 100:g}% interval {low:.1%} to {high:.1%}"
    return f"a drop of {check.measured:.1%} from the baseline ({interval}) {verb}"


def _flips(check: Check) -> str:
    if not check.images:
        return f"was not held against {check.reason}"
    low, high = check.interval
    verb = {"holds": "within", "fails": "more than", "unsure": "which may or may not be within"}[check.outcome]
    interval = f" ({check.confidence * 100:g}% interval {low:.1f} to {high:.1f})" if check.p is not None else ""
    return (
        f"{check.measured:.0f} of {check.images} flipped from right to wrong{interval}, {verb} max_flips {check.limit}"
    )


def _of_all_images(check: Check) -> bool:
    """Whether a check is of the accuracy that is said already."""
    return not check.group and not _is_drop(check) and check.bound != "max_flips"


def _is_drop(check: Check) -> bool:
    return check.bound in ("max_drop", "max_relative_drop") or check.reason == "no regression from the baseline"


def _enough(check: Check) -> str:
    among = (
        f" among bounds judged at once (p = {check.p:.2g}, adjusted {check.adjusted_p:.2g})" if _adjusted(check) else ""
    )
    if check.enough is None:
        return f"{among}, as no number of them could: it is just at the bound"
    return f"{among}, about {check.enough:,} would do"


def _adjusted(check: Check) -> bool:
    """Whether other checks made this one undecided."""
    return check.p is not None and check.p <= 1 - check.confidence


def _compared(comparison: Comparison | None) -> Sequence[str]:
    if comparison is None:
        return ()
    if comparison.same_model:
        return ("the baseline is of the same model",)
    if not comparison.lost and not comparison.gained:
        return ()
    adjusted = f", adjusted {comparison.adjusted_p:.2g}" if comparison.adjusted_p != comparison.p else ""
    lost, gained = len(comparison.lost), len(comparison.gained)
    return (f"against the baseline {lost} lost, {gained} gained (McNemar p = {comparison.p:.2g}{adjusted})",)


def _taken(answers: Answers) -> Sequence[str]:
    pairs = zip(answers.labels, answers.predicted, strict=True)
    one_label = len(set(answers.labels)) == 1
    wrong = Counter(
        f"{predicted!r}" if one_label else f"{label!r} for {predicted!r}"
        for label, predicted in pairs
        if label != predicted
    ).most_common(3)
    if not wrong:
        return ()
    named = ", ".join(f"{name} ({count})" for name, count in wrong)
    return (f"taken for {named}" if one_label else f"taken most {named}",)
