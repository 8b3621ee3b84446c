"""What an explanation can be told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pytest_defuse.rules.settings import RuleSettings
from pytest_defuse.runtime.errors import DefuseError


@dataclass(frozen=True)
class ExplainSettings(RuleSettings):
    """Settings of an explanation; ``@pytest.mark.defuse_explain`` takes these names and those of :class:`RuleSettings`.

    Attributes:
        layer: the feature network's layer whose output is used; default: the input of its last linear layer.
        images: maximum number of tiles in each of a candidate scenario's two sheets.
    """

    layer: str | None = None
    images: int = 256

    def __post_init__(self) -> None:
        for name, low, high in (
            ("top", 1, math.inf),
            ("depth", 1, 3),
            ("min_leaf", 1, math.inf),
            ("min_failures", 1, math.inf),
            ("delta", 0, 1),
            ("tau", 0, 1),
            ("false_discoveries", 0, 1),
            ("images", 1, math.inf),
        ):
            value = getattr(self, name)
            kinds = int if isinstance(getattr(ExplainSettings, name), int) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                kind = "a whole number" if kinds is int else "a number"
                range_ = f"from {low} to {high}" if high < math.inf else f"of {low} or more"
                raise DefuseError(f"defuse_explain({name}={value!r}): give {kind} {range_}.")
        if self.selection not in ("gain", "paper"):
            raise DefuseError(f'defuse_explain(selection={self.selection!r}): give "gain" or "paper".')
        if not isinstance(self.layer, str | None):
            raise DefuseError(f"defuse_explain(layer={self.layer!r}): give a module's name, as in named_modules().")

    @staticmethod
    def of(given: Mapping[str, Any]) -> "ExplainSettings":
        """The defaults, changed where ``given`` says so.

        Raises:
            DefuseError: a name that is no setting, or a value out of range.
        """
        known = [field.name for field in fields(ExplainSettings)]
        for name in given:
            if name not in known:
                raise DefuseError(f"defuse_explain has no setting {name!r}: it has {', '.join(known)}.")
        return ExplainSettings(**given)
