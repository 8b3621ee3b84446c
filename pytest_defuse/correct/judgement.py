"""Whether a correction is accepted: judgements of its scenarios, as pure functions of counts."""

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_defuse.gate.checks import TOLERANCE, WORST_FIRST, Outcome
from pytest_defuse.statistics.significance import mcnemar

SIGNIFICANCE_LEVEL = 0.05
"""Level of the exact tests of a correction: convention."""

MIN_CHANGED = next(count for count in range(1, 100) if mcnemar(0, count) < SIGNIFICANCE_LEVEL)
"""The smallest number of images, 6, whose change from wrong to correct is significant if none changes back."""


@dataclass(frozen=True)
class Judgement:
    """One thing that was required of a correction: its outcome, and a sentence with the figures."""

    outcome: Outcome
    sentence: str


@dataclass(frozen=True)
class ScenarioCounts:
    """Held-out images of one scenario.

    Attributes:
        total: number of images; ``before`` of them are classified correctly by the old model, ``after`` by the new one.
        lost, gained: images that only the old model, only the new model classifies correctly.
    """

    name: str
    total: int
    before: int
    after: int
    lost: int
    gained: int


def judge_scenario(counts: ScenarioCounts, required: float, origin: str) -> Judgement:
    """Whether a correction fixed a scenario.

    ====================================  =================================  ============
    accuracy after                        compared with the old model        outcome
    ====================================  =================================  ============
    below ``required``                    any                                FAIL
    at least ``required``                 significantly better               PASS
    at least ``required``                 significantly worse                FAIL
    at least ``required``, before too     no significant difference          PASS
    at least ``required``, before not     no significant difference          INCONCLUSIVE
    ====================================  =================================  ============

    The difference is tested by McNemar's exact two-sided test at :data:`SIGNIFICANCE_LEVEL`, on this scenario's
    held-out images alone. Fewer than :data:`MIN_CHANGED` images that become correct are never significant, so a
    scenario with fewer wrong images than this is INCONCLUSIVE unless the old model reached ``required``.

    Args:
        required: accuracy that the scenario must reach, in [0, 1].
        origin: of ``required``, in words: ``its bound``.
    """
    before, after = f"{counts.before} of {counts.total}", f"{counts.after} of {counts.total}"
    figures = f"{counts.name}: {before} held-out images are correct before, {after} after"
    needed = required * counts.total - TOLERANCE * counts.total
    p = mcnemar(counts.lost, counts.gained)
    if not counts.total:
        return Judgement("INCONCLUSIVE", f"{counts.name} has no held-out image")
    if counts.after < needed:
        return Judgement("FAIL", f"{figures}, less than {origin} {required:.1%}")
    if p < SIGNIFICANCE_LEVEL:
        better = counts.gained > counts.lost
        words = "significantly better" if better else "significantly worse"
        return Judgement("PASS" if better else "FAIL", f"{figures}, {words} (p = {p:.2g})")
    if counts.before >= needed:
        return Judgement("PASS", f"{figures}: {origin} {required:.1%} was reached before, and it is not worse")
    return Judgement(
        "INCONCLUSIVE",
        f"{figures}, not significantly better (p = {p:.2g}): at least {MIN_CHANGED} images must become correct, so add "
        f"images to the scenario, or lower {origin} {required:.1%}",
    )


def outcome_of(judgements: Iterable[Judgement]) -> Outcome:
    """The worst outcome. A corrected checkpoint is written only for PASS; without any judgement it is INCONCLUSIVE."""
    return min((j.outcome for j in judgements), key=WORST_FIRST.index, default="INCONCLUSIVE")


def problems_of(judgements: Iterable[Judgement]) -> list[str]:
    """The sentences of what did not pass, failures first."""
    failing = sorted((j for j in judgements if j.outcome != "PASS"), key=lambda j: WORST_FIRST.index(j.outcome))
    return [j.sentence if j.outcome == "FAIL" else f"INCONCLUSIVE: {j.sentence}" for j in failing]
