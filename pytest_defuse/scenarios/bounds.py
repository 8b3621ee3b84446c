"""Bounds: what a test requires of the model."""

import re
from contextlib import suppress
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.settings import OpenShare, Settings, Share, setting

UNBOUNDED = "no such bound by default"


class Bounds(Settings):
    """What a test requires of the model; ``@pytest.mark.defuse`` accepts these names.

    Without ``min_accuracy``, ``max_error_rate``, ``max_increase``, ``max_drop``, ``max_relative_drop`` and
    ``max_flips`` the bound is *no regression*: from the accuracy in the baseline or, without a baseline, from the
    accuracy recorded when the scenario was discovered.
    """

    marker: ClassVar = "defuse"

    min_accuracy: Share | None = setting(None, "Minimum accuracy.", UNBOUNDED)
    max_error_rate: Share | None = setting(None, "Maximum share of wrong predictions.", UNBOUNDED)
    max_increase: Share | None = setting(
        None,
        "How much the error rate may exceed that of the group in which a failure mode was found: 0.1 is ten points. "
        "Scenarios of other methods have no such group, and need another bound.",
        UNBOUNDED,
    )
    max_drop: Share | None = setting(
        None, "How much accuracy may fall below the baseline's: 0.02 is two points.", UNBOUNDED
    )
    max_relative_drop: Share | None = setting(None, "The same, as a share of the baseline's accuracy.", UNBOUNDED)
    max_flips: Annotated[int, Field(ge=0)] | None = setting(
        None, "Maximum number of images that were classified correctly in the baseline and no longer are.", UNBOUNDED
    )
    per_class: bool = setting(False, "Whether the bounds also apply to the images of each class.")
    max_shift_drop: Share | None = setting(
        None,
        "How much a correction may cost on each of the subject's shift sets.",
        "`max_shift_drop` of `defuse_correct`",
    )
    confidence: OpenShare | None = setting(
        None,
        "With a confidence, a bound is a statistical test: it fails only if the interval at this confidence excludes "
        "it. Without one, the observed accuracy decides.",
        "fixed bounds are what most tests mean",
    )
    only: Annotated[tuple[str, ...], BeforeValidator(lambda only: (only,) if isinstance(only, str) else only)] = (
        setting(
            (),
            "Ids, labels or subjects of the scenarios that the test covers; default: all that are accepted.",
            strict=False,
        )
    )

    def over(self, other: "Bounds") -> "Bounds":
        """These bounds, completed by those of ``other`` that are not given here."""
        return other.replace(**{name: getattr(self, name) for name in self.model_fields_set})

    def required_accuracy(self, base_error_rate: float | None) -> float | None:
        """The accuracy that the bounds require without a baseline, in [0, 1]; None if they require none."""
        required = [] if self.min_accuracy is None else [self.min_accuracy]
        if self.max_error_rate is not None:
            required.append(1 - self.max_error_rate)
        if self.max_increase is not None and base_error_rate is not None:
            required.append(1 - base_error_rate - self.max_increase)
        return max(0.0, *required) if required else None

    @classmethod
    def parse(cls, text: str, source: str) -> "Bounds":
        """Bounds written as text, ``min_accuracy=0.9 max_flips=3``, separated by spaces, commas or newlines.

        Raises:
            DefuseError: the text has another form, or a bound is wrong or set twice; the message names ``source``.
        """
        pairs = re.findall(r"(\w+)\s*=\s*([^\s,=]+)", text)
        if re.sub(r"\w+\s*=\s*[^\s,=]+", "", text).strip(" ,\n\t\r"):
            raise DefuseError(f'{source} is {text!r}: write bounds as "min_accuracy=0.9 max_flips=3".')
        names = [name for name, _ in pairs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise DefuseError(f"{source} is {text!r}: {twice[0]} is set twice, keep one.")
        return cls.of({name: _literal(value) for name, value in pairs}, source)


def _literal(text: str) -> Any:
    """The number or truth value that a text stands for, or the text."""
    for number in (int, float):
        with suppress(ValueError):  # not a number
            return number(text)
    return {"true": True, "false": False}.get(text.lower(), text)
