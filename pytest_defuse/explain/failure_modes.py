"""Failure modes: features of real images that go with a model's failures (Barlow, section 5)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.rules.gain import Features, Mask
from pytest_defuse.rules.honest import Rows, Rule, honest_rules, rows_of
from pytest_defuse.rules.trees import Node, Path, matches, rule_words
from pytest_defuse.runtime.errors import DefuseError


@dataclass(frozen=True, eq=False)
class Group:
    """Images that are explained together: all with one label, with one prediction, or in a user's mask.

    Attributes:
        rows: the indices of the images, in order.
    """

    kind: Literal["label", "prediction", "images"]
    name: str
    rows: Rows

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class FailureMode(Rule):
    """A rule on visual features, in a group such as ``label cat``, ``prediction cat`` or ``images at night``."""

    @property
    def rule(self) -> str:
        """The rule in words: ``feature 17 'buckle' <= 0.3641 and feature 3 > 1.2``."""
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


@dataclass(frozen=True, eq=False, repr=False)
class FailureModes(Sequence[FailureMode]):
    """The failure modes of a model, the most important first, and the trees that they come from.

    Attributes:
        trees: the measured tree of each group that has enough failures, by the group's name.
        groups: all groups by name.
        skipped: the names of the groups with too few failures.
        measures: bool N, the images that measured the trees.
    """

    modes: tuple[FailureMode, ...]
    trees: Mapping[str, Node]
    groups: Mapping[str, Group]
    skipped: tuple[str, ...]
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
        return "\n".join([f"<{found}; {len(self.skipped)} with too few failures>", *map(str, self.modes)])

    def above(self, times: float = 2.0, coverage: float = 0.2) -> list[FailureMode]:
        """The modes with ER > ``times`` BER and EC >= ``coverage``: ``assert not defuse_failure_modes.above(2)``."""
        return [m for m in self.modes if m.error_rate > times * m.base_error_rate and m.error_coverage >= coverage]

    def rows(self, group: str, path: Path, features: Features) -> Rows:
        """The images of a group that match a rule, among those that measured the trees."""
        rows = self.groups[group].rows
        rows = rows[self.measures[rows]]
        return rows[matches(path, rows_of(features, rows))]


def class_groups(classes: Sequence[str], labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> Iterator[Group]:
    """The images with each label, then the images with each prediction.

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
    """The images in a user's mask.

    Raises:
        DefuseError: the mask is not one bool for each image.
    """
    values = np.asarray(mask)
    if values.dtype != bool or values.shape != (images,):
        raise DefuseError(
            f"Subject(groups=...): {name!r} is {values.dtype} of shape {values.shape}: give one bool for each of the "
            f"{images} test images."
        )
    return Group("images", name, np.flatnonzero(values))


def find_failure_modes(
    features: Features,
    failed: Mask,
    groups: Iterable[Group],
    settings: ExplainSettings | None = None,
    *,
    seed: int = 0,
    names: Mapping[int, str] | None = None,
) -> FailureModes:
    """The failure modes in groups of images, by :func:`honest_rules`, which takes the same arguments."""
    by_name = {str(group): group for group in groups}
    rows = ((name, group.rows) for name, group in by_name.items())
    found = honest_rules(features, failed, rows, settings or ExplainSettings(), seed=seed, names=names)
    modes = tuple(FailureMode(rule.group, rule.path, rule.cluster, rule.q_value) for rule in found.rules)
    return FailureModes(modes, found.trees, by_name, found.skipped, found.measures)
