"""Results in words, the same in every rendering."""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.discover.results import CandidateResult, DiscoveryResult
from pytest_defuse.explain.results import ExplanationResult
from pytest_defuse.gate.checks import Check
from pytest_defuse.gate.results import ScenarioResult, TestSetResult
from pytest_defuse.report.results import Judged, Results
from pytest_defuse.scenarios.bounds import Outcome
from pytest_defuse.statistics.accuracy import Accuracy

WORST_FIRST: tuple[Outcome, ...] = ("fails", "unsure", "holds")
VERDICTS = {"holds": "holds", "fails": "FAILS", "unsure": "too few images to tell"}
TALLY = {"holds": "holding", "fails": "FAILING", "unsure": "with too few images to tell"}


def percent(number: float) -> str:
    """``0.914`` as ``91.4%``."""
    return f"{number:.1%}"


def share(correct: int | None, total: int) -> str:
    """Counts as ``91.4%``; nothing where nothing was counted."""
    return percent(correct / total) if correct is not None and total else ""


def fraction(correct: int, total: int) -> str:
    """Counts with their share, ``234/256 = 91.4%``."""
    return f"{correct}/{total} = {share(correct, total)}" if total else "0/0"


def span(interval: tuple[float, float]) -> str:
    """An interval, ``87.3% - 94.2%``."""
    low, high = interval
    return f"{percent(low)} - {percent(high)}"


def interval_name(confidence: float) -> str:
    """``95% interval``."""
    return f"{confidence * 100:g}% interval"


def counted(number: int, noun: str) -> str:
    """``1 failure mode``, ``2 failure modes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def relative(path: str | Path, start: Path) -> str:
    """A path as one would type it from ``start``."""
    try:
        return os.path.relpath(path, start)
    except ValueError:  # another drive
        return str(path)


def overall(results: Results) -> Outcome | None:
    """The worst outcome of tests, bounds and corrections; None where nothing was judged."""
    outcomes: list[Outcome] = [judged.outcome for judged in results.judged if judged.reason]
    outcomes += ["fails" for _ in results.failed]
    outcomes += ["fails" if correction.problems else "holds" for correction in results.corrections]
    return next((outcome for outcome in WORST_FIRST if outcome in outcomes), None)


def headline(results: Results) -> str:
    """The run in one line: ``digits: 6 scenarios (1 FAILING, 5 holding), 2 new candidates``."""
    if not results:
        return "pytest-defuse: no results"
    said = []
    if results.scenarios:
        counts = Counter(scenario.outcome for scenario in results.scenarios)
        tally = [f"{counts[outcome]} {TALLY[outcome]}" for outcome in WORST_FIRST if counts[outcome]]
        said.append(f"{counted(len(results.scenarios), 'scenario')} ({', '.join(tally)})")
    said += [f"{share(test.correct, test.total)} on the test set" for test in results.test_sets]
    said += ["not corrected" if correction.problems else "corrected" for correction in results.corrections]
    said += [counted(len(discovery.new), "new candidate") for discovery in results.discoveries]
    said += [counted(len(explanation.modes), "failure mode") for explanation in results.explanations]
    flips = sum(len(s.comparison.lost) for s in results.sets if s.comparison)
    if flips:
        said.append(counted(flips, "flip"))
    if results.failed:
        said.append(f"{counted(len(results.failed), 'test')} FAILED")
    subjects = sorted({result.subject for result in results})
    return f"{', '.join(subjects) or 'pytest-defuse'}: {', '.join(said)}"


def measured(accuracy: Accuracy) -> str:
    """``234/256 = 91.4% (95% interval 87.3% - 94.2%)``."""
    return (
        f"{fraction(accuracy.correct, accuracy.total)} ({interval_name(accuracy.confidence)} {span(accuracy.interval)})"
    )


def taken_for(scenario: ScenarioResult) -> str:
    """What the wrong tiles were taken for: ``; taken for 3 (152), 5 (1)``; nothing where none was wrong."""
    wrong = Counter(name for name in scenario.predicted if name != scenario.label).most_common(3)
    return "; taken for " + ", ".join(f"{name} ({count})" for name, count in wrong) if wrong else ""


def gate_command(scenario: ScenarioResult, arguments: Sequence[str]) -> str:
    """The command that measures a scenario again."""
    return shlex.join(["pytest", *arguments, "-k", scenario.id])


def verdict(judged: Judged) -> str:
    """An outcome in words; where it is unsure, with the number of images that would tell."""
    enough = max((check.enough or 0 for check in judged.checks if check.outcome == "unsure"), default=0)
    hint = f": about {enough:,} would do" if judged.outcome == "unsure" and enough else ""
    return VERDICTS[judged.outcome] + hint


def bound_of(judged: Judged) -> str:
    """The bound that decided: an accuracy, or how many flips."""
    flips = [c.limit for c in judged.checks if (c.bound, c.outcome) == ("max_flips", judged.outcome)]
    return f"{flips[0]:.0f} flips" if flips and not judged.bound else percent(judged.bound)


def name_of(judged: Judged) -> str:
    """What was judged: a scenario's id, or which images."""
    if isinstance(judged, ScenarioResult):
        return judged.id
    return (
        f"test set of {judged.subject}" if isinstance(judged, TestSetResult) else f"all scenarios of {judged.subject}"
    )


def accuracy_sentences(results: Results) -> list[str]:
    """Accuracy on all scenarios together and on each test set, also before the correction where one ran."""
    return [
        f"{name_of(judged)}: {measured(judged.accuracy)}"
        + ("" if judged.before is None else f", {share(judged.before, judged.total)} before")
        + (f", bound {bound_of(judged)} ({judged.reason}): {verdict(judged)}" if judged.reason else "")
        for judged in results.judged
        if not isinstance(judged, ScenarioResult)
    ]


def figures(check: Check) -> tuple[str, str, str]:
    """What was measured, its interval, and the limit: flips are counted, all else is a share."""
    show = "{:,.0f}".format if check.bound == "max_flips" else percent
    low, high = check.interval
    return show(check.measured), f"{show(low)} - {show(high)}", show(check.limit)


def check_sentences(judged: Judged) -> list[str]:
    """Every bound that was held against one set of images."""
    return [_check_sentence(judged, check) for check in judged.checks]


def _check_sentence(judged: Judged, check: Check) -> str:
    measured, interval, limit = figures(check)
    group = f", class {check.group}" if check.group else ""
    p = "" if check.adjusted_p is None else f", adjusted p {p_value(check.adjusted_p)}"
    return (
        f"{name_of(judged)}{group}: {check.bound} {measured} ({interval}) on {counted(check.images, 'image')}, "
        f"limit {limit}{p}: {VERDICTS[check.outcome]}"
    )


def comparison_sentences(results: Results) -> list[str]:
    """What is to be said of the baseline beside the table of what changed."""
    compared = [judged.comparison for judged in results.judged if judged.comparison is not None]
    unchanged = sum(not (comparison.lost or comparison.gained) for comparison in compared)
    same = any(comparison.same_model for comparison in compared)
    return [
        *(["the baseline is of this very model: the same weights"] if same else []),
        *([f"no answer changed on {unchanged} of {counted(len(compared), 'set')} of images"] if unchanged else []),
    ]


def p_value(number: float | None) -> str:
    """``0.032``, ``<0.001``; nothing for None."""
    if number is None:
        return ""
    return "<0.001" if number < 0.001 else f"{number:.3f}"


def discovery_sentences(result: DiscoveryResult) -> list[str]:
    """What a discovery did, and how far its judges can be trusted."""
    judges = ", ".join(percent(accuracy) for accuracy in result.judge_accuracies)
    return [
        f"discovery of {result.subject}: {counted(result.failures, 'failure')}, "
        f"{counted(result.regions, 'region')}, {len(result.new) + len(result.known)} confirmed, "
        f"in {result.seconds:.0f} s",
        f"model on training images {percent(result.accuracy)}, on their reconstructions "
        f"{percent(result.reconstruction_accuracy)}; judges on the test set {judges}",
    ]


def known_sentences(result: DiscoveryResult) -> list[str]:
    """What a discovery found beside new candidates."""
    if result.known:
        return [f"known already: {', '.join(result.known)}"]
    return [] if result.new else ["no region was confirmed: nothing to label"]


def novelty_sentence(candidate: CandidateResult) -> str:
    """How far a candidate's pictures are from errors on training images that are known already."""
    novelty = candidate.novelty
    if novelty is None:
        return ""
    wrong = Counter(candidate.predicted)
    del wrong[candidate.proposed_label]
    error = (candidate.proposed_label, *(name for name, _ in wrong.most_common(1)))
    same = sum(pair == error for pair in zip(novelty.labels, novelty.predicted, strict=True))
    typical = sorted(novelty.distances)[len(novelty.distances) // 2]
    return (
        f"of {counted(len(novelty.tiles), 'picture')}, {same} have the same error as the nearest misclassified "
        f"training image; the median distance to it is {typical:.2f} (root mean square over pixels from 0 to 1)"
    )


def explanation_sentences(result: ExplanationResult, start: Path) -> list[str]:
    """How far an explanation looked, whose features it is about, and what became a candidate."""
    looked = f"failure modes of {result.subject}: {len(result.modes)} in {counted(result.groups, 'group')}"
    if result.passed_over:
        looked += f"; {counted(result.passed_over, 'group')} with too few failures to tell"
    said = [looked]
    if result.modes:
        said.append(f"features: {result.features}; their names are kept under {result.key} in store.yaml")
    if result.new:
        said.append(look_sentence(result, start))
        said += [label_command(candidate.id, candidate.proposed_label) for candidate in result.new]
    if result.known:
        said.append(f"known already: {', '.join(result.known)}")
    return said


def look_sentence(result: DiscoveryResult | ExplanationResult, start: Path) -> str:
    """Where the pictures of new candidates are; the commands that label them follow."""
    sheets = Path(result.new[0].folder).parent / "*" / "held_out.png"
    return f"look at {relative(sheets, start)}, then accept what you can label:"


def label_command(candidate: str, label: str) -> str:
    """The command that accepts a candidate."""
    return f"pytest-defuse label {candidate} --label {shlex.quote(label)}"


def reject_command(candidate: str) -> str:
    """The command that rejects a candidate."""
    return f"pytest-defuse label {candidate} --reject"


def correction_sentence(result: CorrectionResult) -> str:
    """What was corrected, and what chose among the trials."""
    return f"correction of {result.subject} in {result.seconds:.0f} s; validation: {result.validation_source}"


def shift_sentences(result: CorrectionResult) -> list[str]:
    """What a correction did to each shift set."""
    return [
        f"shift set {name}: {percent(before)} before, {percent(after)} after"
        for name, (before, after) in result.shifts.items()
    ]


def outcome_sentences(result: CorrectionResult, start: Path) -> list[str]:
    """Which bounds do not hold, and what was written where."""
    output = relative(result.output, start)
    if not result.problems:
        return [f"every bound holds: wrote {output}"]
    return [*result.problems, f"not every bound holds: nothing was overwritten; the attempt is {output}"]
