"""Settings of trees and of the rules that are reported."""

from typing import Literal

from pytest_defuse.runtime.settings import Count, Settings, Share, setting


class RuleSettings(Settings):
    """How trees are grown, and which of their leaves are reported as rules."""

    selection: Literal["gain", "paper"] = setting(
        "gain",
        "How features are ranked. `gain`: by the information gain of their best split, searched exactly. `paper`: by "
        "mutual information from nearest neighbours, with all rates measured on the images that grew the tree, as in "
        "the paper's code.",
        "`benchmarks/failure_modes_speed.py`: 44 times as fast as `paper`, and exact",
    )
    top: Count = setting(20, "Features that a tree may use, the highest ranks first.", "Barlow, section 5")
    depth: int = setting(
        1,
        "Depth of the trees: the number of conditions in a rule.",
        "Barlow, section 5, truncates at 1 to 3; 1 gives the simplest rules",
        ge=1,
        le=3,
    )
    min_leaf: Count = setting(10, "Minimum number of images in a leaf.")
    min_failures: Count = setting(
        10, "Minimum number of failures in each half of a group; a group with fewer is skipped."
    )
    delta: Share = setting(
        0.1, "How much a leaf's error rate must exceed its group's.", "Barlow, section 7: delta = 0.1"
    )
    tau: Share = setting(
        0.2, "Minimum share of its group's failures in a leaf (error coverage).", "Barlow, section 7: tau = 0.2"
    )
    false_discoveries: Share = setting(
        0.05, "Expected share of reported leaves that are due to chance.", "convention: 5%"
    )
