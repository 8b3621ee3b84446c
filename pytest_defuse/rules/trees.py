"""Shallow decision trees that separate failures from successes, with the counts of images in their nodes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.feature_selection import mutual_info_classif
from sklearn.tree import DecisionTreeClassifier

from pytest_defuse.rules.gain import Features, Mask, split_gains
from pytest_defuse.rules.rates import Cluster
from pytest_defuse.rules.settings import RuleSettings


@dataclass(frozen=True)
class Condition:
    """A condition of a rule: a feature, a column with a name from store.yaml, is above a threshold or not."""

    feature: int
    threshold: float
    above: bool
    name: str = ""

    def __str__(self) -> str:
        named = f" {self.name!r}" if self.name else ""
        return f"feature {self.feature}{named} {'>' if self.above else '<='} {self.threshold:.4g}"

    def matches(self, features: Features) -> Mask:
        """Which images meet the condition, bool N, from features N x F."""
        # In float32, a threshold between two neighbouring numbers would be rounded to one of them.
        met: Mask = (features[:, self.feature].astype(np.float64) > self.threshold) == self.above
        return met


Conditions = tuple[Condition, ...]


def matches(conditions: Conditions, features: Features) -> Mask:
    """Which images meet all conditions, bool N, from features N x F."""
    met = np.ones(len(features), dtype=bool)
    for condition in conditions:
        met &= condition.matches(features)
    return met


def rule_words(conditions: Conditions) -> str:
    """The conditions in words: ``feature 17 > 0.82 and feature 3 'wheel' <= 1.5``."""
    return " and ".join(map(str, conditions)) or "all images"


@dataclass(frozen=True)
class Node:
    """A node of a tree: the conditions on the path from the root, and the counts of the images that meet them.

    A node that is not a leaf has two children: first the one that is not above the threshold.
    """

    path: Conditions
    cluster: Cluster
    children: "tuple[Node, ...]" = ()

    def leaves(self) -> "list[Node]":
        """The leaves below this node; the node itself if it is a leaf."""
        return [leaf for child in self.children for leaf in child.leaves()] or [self]


def fit_tree(
    features: Features, failed: Mask, settings: RuleSettings, *, seed: int = 0, names: Mapping[int, str] | None = None
) -> Node:
    """Fit a tree to a group: select features, then split by entropy with balanced classes (Barlow, section 5).

    Args:
        features: float32 N x F, N > 0.
        failed: bool N.
        seed: decides between equally good splits, and draws the noise in the mutual information of ``paper``.
        names: names of features, by column.

    Returns:
        The tree with the counts of the images that it was fitted to; only a root if no split gains anything.
    """
    if settings.selection == "paper":
        scores = mutual_info_classif(features, failed, random_state=seed)  # from nearest neighbours
    else:
        scores = split_gains(features, failed, settings.min_leaf)
    columns = np.argsort(-scores, kind="stable")[: settings.top]
    fitted = DecisionTreeClassifier(
        criterion="entropy",
        class_weight="balanced",
        max_depth=settings.depth,
        min_samples_leaf=settings.min_leaf,
        random_state=seed,
    ).fit(features[:, columns], failed)
    tree, named = fitted.tree_, names or {}

    def skeleton(index: int, path: Conditions) -> Node:
        children = []
        # A split of a pure node gains nothing.
        if tree.children_left[index] >= 0 and tree.impurity[index] > 0:
            feature, threshold = int(columns[tree.feature[index]]), float(tree.threshold[index])
            for above, child in ((False, tree.children_left[index]), (True, tree.children_right[index])):
                step = Condition(feature, threshold, above, named.get(feature, ""))
                children.append(skeleton(int(child), (*path, step)))
        return Node(path, Cluster(0, 0, 0, 0), tuple(children))

    return evaluated(skeleton(0, ()), features, failed)


def evaluated(tree: Node, features: Features, failed: Mask) -> Node:
    """The same tree with the counts of other images, from features N x F and failed, bool N."""
    images, failures = len(failed), int(failed.sum())

    def counted(node: Node, picked: Mask) -> Node:
        cluster = Cluster(int(failed[picked].sum()), int(picked.sum()), failures, images)
        below = (counted(child, picked & child.path[-1].matches(features)) for child in node.children)
        return Node(node.path, cluster, tuple(below))

    return counted(tree, np.ones(images, dtype=bool))
