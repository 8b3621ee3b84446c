"""What an explanation can be told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from pytest_defuse.errors import DefuseError


@dataclass(frozen=True)
class ExplainSettings:
    """Everything that an explanation can be told; ``@pytest.mark.defuse_explain`` takes these names.

    Attributes:
        layer: the feature network's layer that is read; default: what its last linear layer sees.
        selection: ``gain`` ranks features by their best split, searched exactly. ``paper`` does as the paper's
            code: mutual information by nearest neighbours, and everything scored on the images that were fitted.
        top: features that a tree may use, those that rank first.
        depth: of the trees, 1 to 3: conditions in a rule.
        min_leaf: images in a leaf, at least.
        min_failures: failures that each half of a group must hold; with fewer nothing is said of the group.
        delta: how far a leaf's error rate must exceed its group's.
        tau: the share of its group's failures that a leaf must hold.
        false_discoveries: the expected share of the reported leaves whose failures came together by chance.
        images: tiles in each of a candidate scenario's two sheets, at most.
    """

    layer: str | None = None
    selection: Literal["gain", "paper"] = "gain"
    top: int = 20
    depth: int = 1
    min_leaf: int = 10
    min_failures: int = 10
    delta: float = 0.1
    tau: float = 0.2
    false_discoveries: float = 0.05
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
