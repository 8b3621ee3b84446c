"""Bounds: what a test asks of the model."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any, Literal

from pytest_defuse.runtime.errors import DefuseError

Outcome = Literal["holds", "fails", "unsure"]


@dataclass(frozen=True)
class Bounds:
    """What a test asks of the model; ``@pytest.mark.defuse`` takes these names.

    Attributes:
        min_accuracy: the least accuracy, in [0, 1].
        max_error_rate: the largest share of wrong answers, in [0, 1].
        max_increase: how far the error rate may exceed that of the group that a failure mode was found in, in
            [0, 1]: 0.1 is ten points. Scenarios of another method have no such group.
        max_drop: the most that accuracy may fall below the baseline's, in [0, 1]: 0.02 is two points.
        max_relative_drop: the same as a share of the baseline's accuracy, in [0, 1].
        max_flips: how many images that the baseline had right this model may have wrong.
        per_class: the bounds hold for the images of each class too.
        max_shift_drop: the most that a correction may cost on any of the subject's shift sets, in [0, 1].
        confidence: with it a bound is a test: it fails only when the interval at this confidence excludes it.
        only: ids or labels of the scenarios that the test is about; default: all accepted ones.

    Without ``min_accuracy``, ``max_error_rate``, ``max_increase``, ``max_drop``, ``max_relative_drop`` and
    ``max_flips`` the bound is *no regression*: the accuracy in the baseline or, without one, the accuracy
    recorded when the scenario was discovered.
    """

    min_accuracy: float | None = None
    max_error_rate: float | None = None
    max_increase: float | None = None
    max_drop: float | None = None
    max_relative_drop: float | None = None
    max_flips: int | None = None
    per_class: bool = False
    max_shift_drop: float | None = None
    confidence: float | None = None
    only: tuple[str, ...] = ()

    def least_accuracy(self, base_error_rate: float | None) -> float:
        """The accuracy that the bounds ask for without a baseline, in [0, 1]."""
        asked = [0.0 if self.min_accuracy is None else self.min_accuracy]
        if self.max_error_rate is not None:
            asked.append(1 - self.max_error_rate)
        if self.max_increase is not None and base_error_rate is not None:
            asked.append(1 - base_error_rate - self.max_increase)
        return max(asked)

    @staticmethod
    def of(given: Mapping[str, Any], source: str = "the defuse marker") -> "Bounds":
        """Bounds by their names.

        Raises:
            DefuseError: a name that is no bound, or a value out of range; it names ``source``.
        """
        return Bounds(**checked(given, source))


NAMES = tuple(field.name for field in fields(Bounds))


def checked(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The same bounds with values of the right types.

    Raises:
        DefuseError: a name that is no bound, or a value out of range; it names ``source``.
    """
    for name in given:
        if name not in NAMES:
            raise DefuseError(f"{source} has no bound {name!r}: it has {', '.join(NAMES)}.")
    return {name: _value(name, value, source) for name, value in given.items()}


def parse(text: str, source: str) -> dict[str, Any]:
    """Bounds written as text, ``min_accuracy=0.9 max_flips=3``, with spaces, commas or lines between them.

    Raises:
        DefuseError: the text is not of this form, or a bound is wrong; it names ``source``.
    """
    pairs = dict(re.findall(r"(\w+)\s*=\s*([^\s,=]+)", text))
    if re.sub(r"\w+\s*=\s*[^\s,=]+", "", text).strip(" ,\n\t\r"):
        raise DefuseError(f'{source} is {text!r}: write bounds as "min_accuracy=0.9 max_flips=3".')
    return checked({name: _literal(value) for name, value in pairs.items()}, source)


def _literal(text: str) -> Any:
    """A number or truth value where the text is one."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _value(name: str, value: Any, source: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    wanted = "a share from 0 to 1, such as 0.9"
    if name == "only":
        if isinstance(value, str):
            return (value,)
        if isinstance(value, (Sequence, Set)):
            return tuple(value)
        wanted = 'ids or labels, such as ["3-as-5-a1b2c3"]'
    elif name == "per_class":
        if isinstance(value, bool):
            return value
        wanted = "true or false"
    elif name == "max_flips":
        if number and 0 <= value < 10**9 and value == int(value):
            return int(value)
        wanted = "a whole number of 0 or more"
    elif name == "confidence":
        if number and 0 < value < 1:
            return value
        wanted = "a share between 0 and 1, such as 0.95"
    elif number and 0 <= value <= 1:
        return value
    raise DefuseError(f"{source}: {name}={value!r}: give {wanted}.")
