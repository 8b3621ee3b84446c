"""Bounds, and what an accuracy says about them."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any, Literal

from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.accuracy import Accuracy

Outcome = Literal["holds", "fails", "unsure"]


@dataclass(frozen=True)
class Bounds:
    """What a test asks of the model; ``@pytest.mark.defuse`` takes these names.

    Attributes:
        min_accuracy: the least accuracy, in [0, 1].
        max_drop: the most that accuracy may fall below the baseline's, in [0, 1].
        max_shift_drop: the most that a correction may cost on any of the subject's shift sets, in [0, 1].
        confidence: with it a bound fails only when the interval at this confidence excludes it.
        only: ids or labels of the scenarios that the test is about; default: all accepted ones.

    With neither ``min_accuracy`` nor ``max_drop`` the bound is *no regression*: the accuracy that was
    recorded when the scenario was discovered.
    """

    min_accuracy: float | None = None
    max_drop: float | None = None
    max_shift_drop: float | None = None
    confidence: float | None = None
    only: tuple[str, ...] = ()

    @staticmethod
    def of(given: Mapping[str, Any]) -> "Bounds":
        """Bounds from a marker's keyword arguments.

        Raises:
            DefuseError: a name that is no bound, or a value out of range.
        """
        known = [field.name for field in fields(Bounds)]
        for name, value in given.items():
            if name not in known:
                raise DefuseError(f"the defuse marker has no bound {name!r}: it has {', '.join(known)}.")
            if name == "only":
                if not isinstance(value, (str, Sequence, Set)):
                    raise DefuseError(f'defuse(only={value!r}): give ids or labels, such as ["3-as-5-a1b2c3"].')
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise DefuseError(f"defuse({name}={value!r}): give a share from 0 to 1, such as 0.9.")
            if name == "confidence" and value in (0, 1):
                raise DefuseError(f"defuse(confidence={value!r}): give a share between 0 and 1, such as 0.95.")
        only = given.get("only", ())
        return Bounds(**{**given, "only": (only,) if isinstance(only, str) else tuple(only)})


@dataclass(frozen=True)
class Verdict:
    """What became of a bound.

    Attributes:
        outcome: ``unsure`` means that there are too few images to tell; it does not fail.
        bound: the least accuracy that was asked for, in [0, 1].
        reason: where the bound comes from, in words.
    """

    outcome: Outcome
    bound: float
    reason: str


def judge(accuracy: Accuracy, bounds: Bounds, *, recorded: float, baseline: float | None) -> Verdict:
    """Hold an accuracy against the strictest of its bounds.

    Args:
        recorded: accuracy at discovery, the bound when none was given.
        baseline: accuracy in the baseline; ``max_drop`` needs it, and is met where there is none yet.
    """
    asked = []
    if bounds.min_accuracy is not None:
        asked.append((bounds.min_accuracy, "min_accuracy"))
    if bounds.max_drop is not None and baseline is not None:
        asked.append((max(0.0, baseline - bounds.max_drop), f"baseline {baseline:.1%} less max_drop"))
    if not asked and bounds.max_drop is None:
        asked.append((recorded, "no regression from discovery"))
    if not asked:
        return Verdict("holds", 0.0, "max_drop, without a baseline yet")
    bound, reason = max(asked)
    if accuracy.total == 0:
        return Verdict("unsure", bound, reason)
    if bounds.confidence is None:
        return Verdict("holds" if accuracy.value >= bound else "fails", bound, reason)
    low, high = accuracy.interval
    outcome: Outcome = "holds" if low >= bound else "fails" if high < bound else "unsure"
    return Verdict(outcome, bound, reason)
