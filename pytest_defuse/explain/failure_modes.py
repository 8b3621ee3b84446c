"""Failure modes: features of real images that are associated with a model's failures (Barlow, section 5)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.rules.gain import Features, Mask
from pytest_defuse.rules.honest_split import Labels, Rows, Rule, Rules, honest_rules, rows_of
from pytest_defuse.rules.trees import Conditions, matches
from pytest_defuse.runtime.errors import DefuseError


@dataclass(frozen=True, eq=False)
class Group:
    """Images that are explained together, in order: all with one label, with one prediction, or in a user's mask."""

    kind: Literal["label", "prediction", "images"]
    name: str
    rows: Rows

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


FailureMode = Rule
"""A rule on visual features, in a group such as ``label cat``, ``prediction cat`` or ``images at night``."""


@dataclass(frozen=True, eq=False, repr=False)
class FailureModes(Rules, Sequence[FailureMode]):
    """The failure modes of a model, the most important first, the trees that they come from, and all groups by name."""

    groups: Mapping[str, Group]

    @overload
    def __getitem__(self, index: int) -> FailureMode: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FailureMode]: ...
    def __getitem__(self, index: int | slice) -> FailureMode | Sequence[FailureMode]:
        return self.rules[index]

    def __len__(self) -> int:
        return len(self.rules)

    def __repr__(self) -> str:
        found = f"{len(self)} failure modes in {len(self.trees)} groups"
        return "\n".join([f"<{found}; {len(self.skipped)} with too few failures>", *map(str, self.rules)])

    def above(self, times: float = 2.0, coverage: float = 0.2) -> list[FailureMode]:
        """The modes with ER > ``times`` BER and EC >= ``coverage``: ``assert not defuse_failure_modes.above(2)``."""
        return [m for m in self.rules if m.error_rate > times * m.base_error_rate and m.error_coverage >= coverage]

    def rows(self, group: str, rule: Conditions, features: Features) -> Rows:
        """The images of a group that match a rule, among those on which the trees were measured."""
        rows = self.groups[group].rows
        rows = rows[self.measures[rows]]
        return rows[matches(rule, rows_of(features, rows))]


def class_groups(classes: Sequence[str], labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> Iterator[Group]:
    """The images with each label, then the images with each prediction; both are indices into ``classes``, N."""
    yield from (Group("label", name, np.flatnonzero(labels == index)) for index, name in enumerate(classes))
    yield from (Group("prediction", name, np.flatnonzero(predictions == index)) for index, name in enumerate(classes))


def mask_group(name: str, mask: Sequence[bool], images: int) -> Group:
    """The images in a user's mask; DefuseError if it is not one bool for each image."""
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
    labels: Labels | None = None,
) -> FailureModes:
    """The failure modes in groups of images, by :func:`honest_rules`, which takes the same arguments."""
    by_name = {str(group): group for group in groups}
    rows = ((name, group.rows) for name, group in by_name.items())
    found = honest_rules(features, failed, rows, settings or ExplainSettings(), seed=seed, names=names, labels=labels)
    return FailureModes(**vars(found), groups=by_name)
