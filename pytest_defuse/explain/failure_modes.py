"""Failure modes: features of real images that go with a model's failures (Barlow, section 5).

A group of images, all with one label, all with one prediction, or any that the user names, is split by a shallow
tree. One half of the images grows the tree, the other half measures its leaves, so that the rates are not
flattered by the choice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.rules.gain import Features, Mask
from pytest_defuse.rules.rates import Cluster
from pytest_defuse.rules.trees import Node, Path, grown, matches, measured, rule_words
from pytest_defuse.runtime.determinism import random_numbers
from pytest_defuse.runtime.errors import DefuseError

Rows = NDArray[np.int64]
"""Indices of images."""


@dataclass(frozen=True, eq=False)
class Group:
    """Images that are explained together: all with one label, with one prediction, or in a user's mask.

    Attributes:
        rows: their indices, in order.
    """

    kind: Literal["label", "prediction", "images"]
    name: str
    rows: Rows

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class FailureMode:
    """A rule on features that picks images on which the model fails more than on the rest of their group.

    Attributes:
        group: the images it is about: ``label cat``, ``prediction cat``, ``images at night``.
        path: the rule's conditions, all of which hold.
        cluster: what the rule picks, counted on images that did not choose it (``paper``: on those that did).
        q_value: the permutation test's p-value after Benjamini and Hochberg; None in ``paper``.
    """

    group: str
    path: Path
    cluster: Cluster
    q_value: float | None = None

    @property
    def rule(self) -> str:
        """The rule in words: ``feature 17 'buckle' <= 0.3641 and feature 3 > 1.2``."""
        return rule_words(self.path)

    @property
    def error_rate(self) -> float:
        """ER, the share of failures among the images that the rule picks, in [0, 1]."""
        return self.cluster.error_rate

    @property
    def base_error_rate(self) -> float:
        """BER, the share of failures in the group, in [0, 1]."""
        return self.cluster.base_error_rate

    @property
    def error_coverage(self) -> float:
        """EC, the share of the group's failures that the rule picks, in [0, 1]."""
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


@dataclass(frozen=True, eq=False, repr=False)
class FailureModes(Sequence[FailureMode]):
    """The failure modes of a model, most important first; and what else came out of looking for them.

    Attributes:
        modes: those that are reported.
        trees: the measured tree of every group that was looked into, by the group's name.
        groups: these groups.
        passed_over: the groups with too few failures to say anything.
        measures: bool N, the images whose failures were counted.
    """

    modes: tuple[FailureMode, ...]
    trees: Mapping[str, Node]
    groups: Mapping[str, Group]
    passed_over: tuple[str, ...]
    measures: Mask

    @overload
    def __getitem__(self, index: int) -> FailureMode: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FailureMode]: ...
    def __getitem__(self, index: int | slice) -> FailureMode | Sequence[FailureMode]:
        return self.modes[index]

    def __len__(self) -> int:
        return len(self.modes)

    def __repr__(self) -> str:
        found = f"{len(self)} failure modes in {len(self.trees)} groups"
        return "\n".join([f"<{found}; {len(self.passed_over)} with too few failures>", *map(str, self.modes)])

    def above(self, times: float = 2.0, coverage: float = 0.2) -> list[FailureMode]:
        """The modes with ER > ``times`` BER and EC >= ``coverage``: ``assert not defuse_failure_modes.above(2)``."""
        return [m for m in self.modes if m.error_rate > times * m.base_error_rate and m.error_coverage >= coverage]

    def rows(self, group: str, path: Path, features: Features) -> Rows:
        """The images of a group that meet a rule's conditions, among those that were counted."""
        rows = self.groups[group].rows
        rows = rows[self.measures[rows]]
        return rows[matches(path, rows_of(features, rows))]


def class_groups(classes: Sequence[str], labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> Iterator[Group]:
    """All images with each label, then all with each prediction.

    Args:
        labels, predictions: indices into ``classes``, N.
    """
    kinds: tuple[tuple[Literal["label", "prediction"], NDArray[np.int64]], ...] = (
        ("label", labels),
        ("prediction", predictions),
    )
    for kind, indices in kinds:
        for index, name in enumerate(classes):
            yield Group(kind, name, np.flatnonzero(indices == index))


def mask_group(name: str, mask: Sequence[bool], images: int) -> Group:
    """The images of a user's mask.

    Raises:
        DefuseError: it is not one truth value an image.
    """
    given = np.asarray(mask)
    if given.dtype != bool or given.shape != (images,):
        raise DefuseError(
            f"Subject(groups=...): {name!r} is {given.dtype} of shape {given.shape}: give one bool for each of the "
            f"{images} test images."
        )
    return Group("images", name, np.flatnonzero(given))


def find_failure_modes(
    features: Features,
    failed: Mask,
    groups: Iterable[Group],
    settings: ExplainSettings | None = None,
    *,
    seed: int = 0,
    names: Mapping[int, str] | None = None,
) -> FailureModes:
    """The failure modes in groups of images.

    A leaf is reported where ER > BER + ``delta`` and EC > ``tau`` and, unless everything is to be as in the
    paper, chance does not explain it: a permutation test of each leaf that failed more than its group on the
    images that grew the tree, at a false discovery rate over all groups (Benjamini and Hochberg 1995, JRSS B
    57, p. 289).

    Args:
        features: float32 N x F; a memory-mapped file is read one group at a time.
        failed: bool N, whether the model is wrong.
        seed: decides which half of the images grows trees and which measures them.
        names: what people call features, by number.
    """
    settings = settings or ExplainSettings()
    paper = settings.selection == "paper"
    grows = np.ones(len(failed), dtype=bool) if paper else random_numbers(seed).permutation(len(failed)) % 2 == 0
    measures = grows if paper else ~grows
    trees: dict[str, Node] = {}
    tried: dict[str, Group] = {}
    passed_over: list[str] = []
    leaves: list[tuple[str, Node]] = []
    for group in groups:
        growing, measuring = group.rows[grows[group.rows]], group.rows[measures[group.rows]]
        if min(failed[growing].sum(), failed[measuring].sum()) < settings.min_failures:
            passed_over.append(str(group))
            continue
        tree = grown(rows_of(features, growing), failed[growing], settings, seed=seed, names=names)
        suspects = [node.path for node in tree.leaves() if node.cluster.increase > 0]
        if not paper:
            tree = measured(tree, rows_of(features, measuring), failed[measuring])
        trees[str(group)], tried[str(group)] = tree, group
        leaves += [(str(group), node) for node in tree.leaves() if node.path in suspects]
    q_values = [None] * len(leaves) if paper else false_discovery_control([leaf.cluster.p_value for _, leaf in leaves])
    found = [
        FailureMode(group, leaf.path, leaf.cluster, None if q_value is None else float(q_value))
        for (group, leaf), q_value in zip(leaves, q_values, strict=True)
        if (q_value is None or q_value <= settings.false_discoveries)
        and leaf.cluster.increase > settings.delta
        and leaf.cluster.error_coverage > settings.tau
    ]
    found.sort(key=lambda mode: mode.importance, reverse=True)
    return FailureModes(tuple(found), trees, tried, tuple(passed_over), measures)


def rows_of(features: Features, rows: Rows) -> Features:
    """Some rows of N x F features, in memory.

    Of a mapped file they are read through a map of their own: its pages are given back when it goes.
    """
    if isinstance(features, np.memmap) and features.filename is not None:
        file = np.memmap(features.filename, features.dtype, "r", features.offset, features.shape)
        return np.asarray(file[rows])
    return features[rows]
