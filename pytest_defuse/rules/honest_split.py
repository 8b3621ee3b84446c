"""Honest rules: found on a random half of the images, measured and tested on the other, at a false discovery rate.

Rates measured on the images that were used to choose a rule would be too high.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from pytest_defuse.rules.gain import Features, Mask
from pytest_defuse.rules.rates import Cluster
from pytest_defuse.rules.settings import RuleSettings
from pytest_defuse.rules.trees import Conditions, Node, evaluated, fit_tree, rule_words
from pytest_defuse.runtime.determinism import Stream, random_numbers

Rows = NDArray[np.int64]
"""Indices of images."""

Labels = NDArray[np.int64]
"""Class indices of images."""


@dataclass(frozen=True)
class Rule:
    """A rule, the conditions in ``path``, whose images fail more often than the rest of their group.

    Attributes:
        cluster: the counts of its images, among images that were not used to choose the rule (``paper``: that were).
        q_value: the p-value of the permutation test after Benjamini-Hochberg correction; None with ``paper``.
    """

    group: str
    path: Conditions
    cluster: Cluster
    q_value: float | None = None

    @property
    def rule(self) -> str:
        """The conditions in words: ``feature 17 'buckle' <= 0.3641 and feature 3 > 1.2``."""
        return rule_words(self.path)

    @property
    def error_rate(self) -> float:
        """ER, the share of failures among the images that match the rule, in [0, 1]."""
        return self.cluster.error_rate

    @property
    def base_error_rate(self) -> float:
        """BER, the share of failures in the group, in [0, 1]."""
        return self.cluster.base_error_rate

    @property
    def error_coverage(self) -> float:
        """EC, the share of the group's failures that match the rule, in [0, 1]."""
        return self.cluster.error_coverage

    @property
    def importance(self) -> float:
        """IV = ER * EC, in [0, 1]."""
        return self.cluster.importance

    def __str__(self) -> str:
        low, high = self.cluster.error_rate_interval
        return (
            f"{self.group}: where {self.rule}, error rate {self.error_rate:.1%} (95% interval {low:.1%} to {high:.1%}, "
            f"{100 * self.cluster.increase:+.1f} points) on {self.cluster.images} images, "
            f"{self.error_coverage:.0%} of the failures"
        )


@dataclass(frozen=True, eq=False)
class Rules:
    """Rules, the most important first, and the trees that they come from.

    Attributes:
        trees: the measured tree of each group that has enough failures, by name; ``skipped`` names the others.
        measures: bool N, the images on which the trees are measured.
    """

    rules: tuple[Rule, ...]
    trees: Mapping[str, Node]
    skipped: tuple[str, ...]
    measures: Mask


def honest_rules(
    features: Features,
    failed: Mask,
    groups: Iterable[tuple[str, Rows]],
    settings: RuleSettings,
    *,
    seed: int = 0,
    names: Mapping[int, str] | None = None,
    labels: Labels | None = None,
) -> Rules:
    """Find rules in groups of images.

    A leaf is reported if ER > BER + ``delta``, EC > ``tau`` (Barlow, section 5) and a permutation test is significant.
    All leaves that exceed their group's error rate on the growing half are tested on the measuring half, at a false
    discovery rate over all groups (Benjamini and Hochberg 1995, JRSS B 57, p. 289). With ``selection="paper"``, all
    images do both, and there is no test.

    Args:
        features: float32 N x F; of a memory-mapped file, the rows of one group at a time are read.
        failed: bool N, whether the model is wrong.
        groups: name and rows of each group.
        seed: decides which half of the images is used to grow the trees.
        names: names of features, by column.
        labels: class indices, int64 N: both halves have the same share of each label's failures and successes.
    """
    paper = settings.selection == "paper"
    grows = np.ones(len(failed), dtype=bool) if paper else _half(failed, labels, seed)
    measures = grows if paper else ~grows
    trees: dict[str, Node] = {}
    skipped: list[str] = []
    leaves: list[tuple[str, Node]] = []
    for group, rows in groups:
        growing, measuring = rows[grows[rows]], rows[measures[rows]]
        if min(failed[growing].sum(), failed[measuring].sum()) < settings.min_failures:
            skipped.append(group)
            continue
        tree = fit_tree(rows_of(features, growing), failed[growing], settings, seed=seed, names=names)
        tested = [node.path for node in tree.leaves() if node.cluster.increase > 0]
        if not paper:
            tree = evaluated(tree, rows_of(features, measuring), failed[measuring])
        trees[group] = tree
        leaves += [(group, node) for node in tree.leaves() if node.path in tested]
    q_values = [None] * len(leaves) if paper else false_discovery_control([leaf.cluster.p_value for _, leaf in leaves])
    rules = [
        Rule(group, leaf.path, leaf.cluster, None if q_value is None else float(q_value))
        for (group, leaf), q_value in zip(leaves, q_values, strict=True)
        if (q_value is None or q_value <= settings.false_discoveries)
        and leaf.cluster.increase > settings.delta
        and leaf.cluster.error_coverage > settings.tau
    ]
    rules.sort(key=lambda rule: rule.importance, reverse=True)
    return Rules(tuple(rules), trees, tuple(skipped), measures)


def _half(failed: Mask, labels: Labels | None, seed: int) -> Mask:
    """A random half of the images, bool N, stratified by label and failure."""
    order = random_numbers(seed, Stream.RULE_HALVES).permutation(len(failed))
    strata = failed if labels is None else 2 * labels + failed
    by_stratum = order[np.argsort(strata[order], kind="stable")]
    half = np.zeros(len(failed), dtype=bool)
    half[by_stratum[::2]] = True
    return half


def rows_of(features: Features, rows: Rows) -> Features:
    """Rows of features N x F, in memory; a memory-mapped file is opened again, so that its pages are released."""
    if isinstance(features, np.memmap) and features.filename is not None:
        file = np.memmap(features.filename, features.dtype, "r", features.offset, features.shape)
        return np.asarray(file[rows])
    return features[rows]
