"""How trees are grown and which of their leaves are reported."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RuleSettings:
    """How rules are found.

    Attributes:
        selection: ``gain`` ranks features by their best split, searched exactly. ``paper`` follows the paper's
            code: mutual information by nearest neighbours, and everything is scored on the images that were fitted.
        top: features that a tree may use, best ranks first.
        depth: depth of the trees, 1 to 3: the number of conditions in a rule.
        min_leaf: minimum number of images in a leaf.
        min_failures: failures that each half of a group must contain; a group with fewer is skipped.
        delta: how far a leaf's error rate must exceed its group's.
        tau: the share of its group's failures that a leaf must contain.
        false_discoveries: the expected share of reported leaves that are due to chance.
    """

    selection: Literal["gain", "paper"] = "gain"
    top: int = 20
    depth: int = 1
    min_leaf: int = 10
    min_failures: int = 10
    delta: float = 0.1
    tau: float = 0.2
    false_discoveries: float = 0.05
