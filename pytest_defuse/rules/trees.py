"""Shallow decision trees that tell failures from successes, and what a group's images do in them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from pytest_defuse.rules.gain import Features, Mask, mutual_information, split_gains
from pytest_defuse.rules.rates import Cluster
from pytest_defuse.rules.settings import RuleSettings


@dataclass(frozen=True)
class Condition:
    """One step of a rule: a feature is above a threshold, or up to it.

    Attributes:
        feature: the feature's number among all features of its layer.
        name: what people call it, if they gave it a name.
    """

    feature: int
    threshold: float
    above: bool
    name: str = ""

    def __str__(self) -> str:
        named = f" {self.name!r}" if self.name else ""
        return f"feature {self.feature}{named} {'>' if self.above else '<='} {self.threshold:.4g}"

    def holds(self, features: Features) -> Mask:
        """For which images, bool N, of features N x F it holds."""
        # In float32 a threshold between two neighbouring numbers would be rounded onto one of them.
        above = features[:, self.feature].astype(np.float64) > self.threshold
        held: Mask = above if self.above else ~above
        return held


Path = tuple[Condition, ...]


def matches(path: Path, features: Features) -> Mask:
    """For which images, bool N, of features N x F all conditions hold."""
    picked = np.ones(len(features), dtype=bool)
    for condition in path:
        picked &= condition.holds(features)
    return picked


def rule_words(path: Path) -> str:
    """A path of conditions in words: ``feature 17 > 0.82 and feature 3 'wheel' <= 1.5``."""
    return " and ".join(map(str, path)) or "all images"


@dataclass(frozen=True)
class Node:
    """A node of a tree with the images of a group that reach it.

    Attributes:
        path: the conditions from the root to here; empty at the root.
        cluster: the images, as counts.
        children: the two nodes below, that up to the threshold first; none in a leaf.
    """

    path: Path
    cluster: Cluster
    children: "tuple[Node, ...]" = ()

    def walk(self) -> "Iterator[Node]":
        """This node and all below, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def leaves(self) -> "list[Node]":
        """The leaves below, or the node itself."""
        return [node for node in self.walk() if not node.children]


def grown(
    features: Features,
    failed: Mask,
    settings: RuleSettings,
    *,
    seed: int = 0,
    names: Mapping[int, str] | None = None,
) -> Node:
    """Fit a tree to a group: the best features first, then entropy with balanced classes (Barlow, section 5).

    Args:
        features: float32 N x F, N > 0.
        failed: bool N.
        seed: which of equally good splits wins, and the noise in ``paper``'s mutual information.
        names: what people call features, by number.

    Returns:
        The tree with the counts of the images that it was fitted to; a root alone where nothing can be gained.
    """
    if settings.selection == "paper":
        worth = mutual_information(features, failed, seed)
    else:
        worth = split_gains(features, failed, settings.min_leaf)
    columns = np.argsort(-worth, kind="stable")[: settings.top]
    fitted = DecisionTreeClassifier(
        criterion="entropy",
        class_weight="balanced",
        max_depth=settings.depth,
        min_samples_leaf=settings.min_leaf,
        random_state=seed,
    ).fit(features[:, columns], failed)
    tree, named = fitted.tree_, names or {}

    def skeleton(index: int, path: Path) -> Node:
        children = []
        # Where nothing is gained, a split says nothing.
        if tree.children_left[index] >= 0 and tree.impurity[index] > 0:
            feature, threshold = int(columns[tree.feature[index]]), float(tree.threshold[index])
            for above, child in ((False, tree.children_left[index]), (True, tree.children_right[index])):
                step = Condition(feature, threshold, above, named.get(feature, ""))
                children.append(skeleton(int(child), (*path, step)))
        return Node(path, Cluster(0, 0, 0, 0), tuple(children))

    return measured(skeleton(0, ()), features, failed)


def measured(tree: Node, features: Features, failed: Mask) -> Node:
    """The same tree with the counts of other images: features N x F, failed bool N."""
    images, failures = len(failed), int(failed.sum())

    def counted(node: Node, picked: Mask) -> Node:
        cluster = Cluster(int(failed[picked].sum()), int(picked.sum()), failures, images)
        below = (counted(child, picked & child.path[-1].holds(features)) for child in node.children)
        return Node(node.path, cluster, tuple(below))

    return counted(tree, np.ones(images, dtype=bool))
