"""Results in words; every rendering uses the same."""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median_high

from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.discover.results import CandidateResult, DiscoveryResult
from pytest_defuse.explain.results import ExplanationResult, NodeResult
from pytest_defuse.gate.checks import WORST_FIRST, Check, Outcome
from pytest_defuse.gate.results import ScenarioResult, Verdict
from pytest_defuse.gate.sentences import nondeterminism
from pytest_defuse.report.results import Results
from pytest_defuse.statistics.accuracy import Accuracy


def percent(number: float) -> str:
    """``0.914`` as ``91.4%``."""
    return f"{number:.1%}"


def share(correct: int | None, total: int) -> str:
    """Counts as ``91.4%``; empty without counts."""
    return percent(correct / total) if correct is not None and total else ""


def fraction(correct: int, total: int) -> str:
    """Counts with their share, ``234/256 = 91.4%``."""
    return f"{correct}/{total} = {share(correct, total)}" if total else "0/0"


def span(interval: tuple[float, float]) -> str:
    """An interval, ``87.3% - 94.2%``."""
    return " - ".join(map(percent, interval))


def interval_name(confidence: float) -> str:
    """``95% interval``."""
    return f"{confidence * 100:g}% interval"


def counted(number: int, noun: str) -> str:
    """``1 failure mode``, ``2 failure modes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def relative(path: str | Path, start: Path) -> str:
    """A path relative to ``start``, as a user would type it there."""
    try:
        return os.path.relpath(path, start)
    except ValueError:  # another drive
        return str(path)


def worst_outcome(results: Results) -> Outcome | None:
    """The worst outcome of tests, bounds and corrections; None if there is none. A partial run passes nothing."""
    outcomes: list[Outcome] = [verdict.outcome for verdict in results.verdicts if verdict.checks]
    outcomes += ["FAIL" for _ in (*results.failed, *results.problems)]
    outcomes += ["FAIL" if correction.problems else "PASS" for correction in results.corrections]
    outcomes += ["INCONCLUSIVE"] if results.partial else []
    return next((outcome for outcome in WORST_FIRST if outcome in outcomes), None)


def headline(results: Results) -> str:
    """The run in one line: ``digits: 6 scenarios (1 FAIL, 5 PASS), 2 new candidates``."""
    if not results:
        return f"pytest-defuse: {'PARTIAL, ' if results.partial else ''}no results"
    parts = ["PARTIAL"] if results.partial else []
    if results.scenarios:
        counts = Counter(scenario.outcome for scenario in results.scenarios)
        tally = [f"{counts[outcome]} {outcome}" for outcome in WORST_FIRST if counts[outcome]]
        parts.append(f"{counted(len(results.scenarios), 'scenario')} ({', '.join(tally)})")
    parts += [f"{share(test.correct, test.total)} on the test set" for test in results.test_sets]
    parts += ["not corrected" if correction.problems else "corrected" for correction in results.corrections]
    parts += [counted(len(discovery.new), "new candidate") for discovery in results.discoveries]
    parts += [counted(len(explanation.modes), "failure mode") for explanation in results.explanations]
    if flips := sum(len(verdict.comparison.lost) for verdict in results.sets if verdict.comparison):
        parts.append(counted(flips, "flip"))
    if results.failed:
        parts.append(f"{counted(len(results.failed), 'test')} FAILED")
    if results.problems:
        parts.append("FAILED: not all that was required was judged")
    subjects = sorted({result.subject for result in results})
    return f"{', '.join(subjects) or 'pytest-defuse'}: {', '.join(parts)}"


def accuracy_text(accuracy: Accuracy) -> str:
    """``234/256 = 91.4% (95% interval 87.3% - 94.2%)``."""
    interval = f"{interval_name(accuracy.confidence)} {span(accuracy.interval)}"
    return f"{fraction(accuracy.correct, accuracy.total)} ({interval})"


def gate_command(scenario: ScenarioResult, arguments: Sequence[str]) -> str:
    """The command that repeats the test of a scenario."""
    return shlex.join(["pytest", *arguments, "-k", scenario.id])


def outcome_text(verdict: Verdict) -> str:
    """An outcome; for INCONCLUSIVE with the number of images that would decide."""
    needed = max((check.images_needed or 0 for check in verdict.checks if check.outcome == "INCONCLUSIVE"), default=0)
    hint = f": needs about {needed:,} images" if verdict.outcome == "INCONCLUSIVE" and needed else ""
    return verdict.outcome + hint


def bound_of(verdict: Verdict) -> str:
    """The decisive bound: an accuracy, or a number of flips."""
    flips = [check.limit for check in verdict.checks if (check.bound, check.outcome) == ("max_flips", verdict.outcome)]
    return f"{flips[0]:.0f} flips" if flips and not verdict.bound else percent(verdict.bound)


def accuracy_sentences(results: Results) -> list[str]:
    """Accuracy on all scenarios together and on each test set, also before the correction if there was one."""
    return [
        f"{verdict.name}: {accuracy_text(verdict.accuracy)}"
        + ("" if verdict.correct_before is None else f", {share(verdict.correct_before, verdict.total)} before")
        + (f", bound {bound_of(verdict)} ({verdict.reason}): {outcome_text(verdict)}" if verdict.checks else "")
        for verdict in results.verdicts
        if not isinstance(verdict, ScenarioResult)
    ]


def figures(check: Check) -> tuple[str, str, str]:
    """The measured value, its interval and the limit; flips are counts, all else are shares."""
    show = "{:,.0f}".format if check.bound == "max_flips" else percent
    low, high = check.interval
    return show(check.measured), f"{show(low)} - {show(high)}", show(check.limit)


def check_sentences(verdict: Verdict) -> list[str]:
    """Every bound that was evaluated on one set of images."""
    sentences = []
    for check in verdict.checks:
        measured, interval, limit = figures(check)
        group = f", class {check.group}" if check.group else ""
        p = "" if check.p is None else f", p {p_value(check.p)}"
        sentences.append(
            f"{verdict.name}{group}: {check.bound} {measured} ({interval}) on {counted(check.total, 'image')}, "
            f"limit {limit}{p}: {check.outcome}"
        )
    return sentences


def comparison_sentences(results: Results) -> list[str]:
    """Remarks on the comparison with the baseline, in addition to the table of changes."""
    compared = [(verdict, verdict.comparison) for verdict in results.verdicts if verdict.comparison]
    unchanged = sum(not (comparison.lost or comparison.gained) for _, comparison in compared)
    sentences = []
    same = [verdict for verdict, _ in compared if verdict.predictions.same_model]
    if any(verdict.predictions.repeated for verdict in same):
        sentences.append("the baseline is from the same model")
    sentences += [
        f"{verdict.name}: {nondeterminism(verdict.predictions)}" for verdict in same if not verdict.predictions.repeated
    ]
    if unchanged:
        sentences.append(f"no prediction changed on {unchanged} of {counted(len(compared), 'set')} of images")
    return sentences


def p_value(number: float | None) -> str:
    """``0.032``, ``<0.001``; empty for None."""
    return "" if number is None else "<0.001" if number < 0.001 else f"{number:.3f}"


def discovery_sentences(result: DiscoveryResult) -> list[str]:
    """The numbers of a discovery, and the accuracies that say how reliable it is."""
    judges = ", ".join(percent(accuracy) for accuracy in result.judge_accuracies)
    sentences = [
        f"discovery of {result.subject}: {counted(result.failures, 'failure')}, {counted(result.regions, 'region')}, "
        f"{_confirmed(result)}, in {result.seconds:.0f} s",
        f"accuracy of the model: {percent(result.accuracy)} on training images, "
        f"{percent(result.reconstruction_accuracy)} on their reconstructions; of the reference classifiers (judges) on "
        f"the test set: {judges}",
    ]
    if result.passes:
        sentences.append(
            f"forward passes, one per image: {result.passes:,} of the model, {result.judge_passes:,} of the judges"
        )
    if result.latent_dim:
        sentences.append(f"the generator uses {result.active_dimensions} of its {result.latent_dim} latent dimensions")
    return sentences


def _confirmed(result: DiscoveryResult) -> str:
    """The number of confirmed regions, and what became candidates: several regions can be of one known scenario."""
    written, left_out = len(result.new), len(result.left_out)
    confirmed = result.confirmed or written + len(result.known)  # results of earlier versions count no regions
    return (
        f"{confirmed} confirmed: {written} written, {confirmed - written - left_out} known from the store, "
        f"{left_out} left out"
    )


def known_sentences(result: DiscoveryResult) -> list[str]:
    """What a discovery found apart from new candidates."""
    sentences = [f"already in the store: {', '.join(result.known)}"] if result.known else []
    sentences += [f"left out: {sentence}" for sentence in result.left_out]
    if result.left_out:
        sentences.append("the same command writes the next candidates, because those in the store no longer count")
    return sentences if sentences or result.new else ["no region was confirmed: nothing to label"]


def novelty_sentence(candidate: CandidateResult) -> str:
    """How far a candidate's images are from errors on training images; empty if they were not compared."""
    novelty = candidate.novelty
    if novelty is None:
        return ""
    wrong = Counter({name: count for name, count in candidate.predicted.items() if name != candidate.proposed_label})
    error = (candidate.proposed_label, *(name for name, _ in wrong.most_common(1)))
    same = sum(pair == error for pair in zip(novelty.labels, novelty.predicted, strict=True))
    return (
        f"of {counted(len(novelty.tiles), 'image')}, {same} have the same error as the nearest misclassified training "
        f"image; the median distance to it is {median_high(novelty.distances):.2f} (root mean square over pixels from "
        "0 to 1)"
    )


def explanation_sentences(result: ExplanationResult, start: Path) -> list[str]:
    """The groups that were searched, the features that the rules use, and new and known candidates."""
    searched = f"failure modes of {result.subject}: {len(result.modes)} in {counted(result.groups, 'group')}"
    if result.passed_over:
        searched += f"; {counted(result.passed_over, 'group')} with too few failures"
    sentences = [searched]
    if result.modes:
        sentences.append(f"features: {result.features}; name them under {result.key} in store.yaml")
    if result.new:
        sentences.append(look_sentence(result, start))
        sentences += [label_command(candidate.id, candidate.proposed_label) for candidate in result.new]
    if result.known:
        sentences.append(f"already in the store: {', '.join(result.known)}")
    return sentences + [f"left out: {sentence}" for sentence in result.left_out]


def rate_sentences(node: NodeResult) -> list[str]:
    """The rates of a tree's node with their intervals."""
    cluster = node.cluster
    rates = {
        "error rate": (cluster.error_rate, cluster.error_rate_interval),
        "share of the group's failures": (cluster.error_coverage, cluster.error_coverage_interval),
        "importance (their product)": (cluster.importance, cluster.importance_interval),
    }
    return [f"{name} {percent(value)}, 95% interval {span(interval)}" for name, (value, interval) in rates.items()]


def look_sentence(result: DiscoveryResult | ExplanationResult, start: Path) -> str:
    """The files of new candidates' images; the commands that label them follow."""
    sheets = Path(result.new[0].folder).parent / "*" / "held_out.png"
    return f"look at {relative(sheets, start)}, then accept what you can label:"


def label_command(candidate: str, label: str) -> str:
    """The command that accepts a candidate."""
    return f"pytest-defuse label {candidate} --label {shlex.quote(label)}"


def reject_command(candidate: str) -> str:
    """The command that rejects a candidate."""
    return f"pytest-defuse label {candidate} --reject"


def correction_sentence(result: CorrectionResult) -> str:
    """The subject, the duration and the images that chose among the trials."""
    return f"correction of {result.subject} in {result.seconds:.0f} s; validation: {result.validation_source}"


def outcome_sentences(result: CorrectionResult, start: Path) -> list[str]:
    """The bounds that fail, and the file that was written."""
    output = relative(result.output, start)
    if not result.problems:
        return [f"every bound passes: wrote {output}"]
    return [*result.problems, f"not every bound passes: nothing was overwritten; the attempt is {output}"]
