"""Failure modes: features of real images that go with a model's failures (Barlow, section 5).

A group of images, all with one label or all with one prediction, is split by the best threshold on one
feature: a decision tree of depth 1. One half of the images chooses feature and threshold, the other half
measures the two leaves, so the rates are not flattered by the choice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log

import torch
from scipy.stats import false_discovery_control, hypergeom
from torch import Tensor
from torch.special import entr

from pytest_defuse.classifier import Classifier
from pytest_defuse.determinism import random_numbers, seeded
from pytest_defuse.explain.features import penultimate_features
from pytest_defuse.subject import Subject

MIN_FAILURES = 10
"""Failures that each half of a group must hold; with fewer, neither a split nor its rates mean much."""

FALSE_DISCOVERY_RATE = 0.05
"""The expected share of the reported leaves whose failures came together by chance."""


@dataclass(frozen=True)
class FailureMode:
    """A rule on one feature that picks images on which the model fails more than on the rest of their group.

    Attributes:
        group: the images it is about, by class name: ``label cat`` or ``prediction cat``.
        feature: the feature's number among all features of the penultimate layer.
        threshold: where the feature is cut.
        above: whether the rule picks the images above the threshold, or those up to it.
        error_rate: ER, the share of failures among the images that the rule picks, in [0, 1].
        base_error_rate: BER, the share of failures in the group, in [0, 1].
        error_coverage: EC, the share of the group's failures that the rule picks, in [0, 1].
        images: how many images the rule picks, among those that measured it.
    """

    group: str
    feature: int
    threshold: float
    above: bool
    error_rate: float
    base_error_rate: float
    error_coverage: float
    images: int

    @property
    def rule(self) -> str:
        """The rule in words: ``feature 17 > 0.82``."""
        return f"feature {self.feature} {'>' if self.above else '<='} {self.threshold:.3g}"

    @property
    def importance(self) -> float:
        """IV = ER * EC, in [0, 1] (Barlow, definition 5)."""
        return self.error_rate * self.error_coverage


@dataclass(frozen=True)
class Split:
    """A tree of depth 1: the images with ``feature`` above ``threshold``, and the others.

    Attributes:
        gain: information gain in bits, in [0, 1], failures and successes weighing the same.
    """

    feature: int
    threshold: float
    gain: float

    def above(self, features: Tensor) -> Tensor:
        """Which images, bool N, of features N x F are above the threshold."""
        # In float32 the threshold between two neighbouring numbers would be rounded onto one of them.
        return features[:, self.feature].double() > self.threshold


@dataclass(frozen=True)
class Leaf:
    """A leaf of a tree over a group, as counts (Barlow, definitions 1 to 3)."""

    failures: int
    images: int
    group_failures: int
    group_images: int

    @property
    def error_rate(self) -> float:
        """ER, the share of failures in the leaf; 0 in an empty leaf."""
        return self.failures / max(self.images, 1)

    @property
    def base_error_rate(self) -> float:
        """BER, the share of failures in the group; 0 in an empty group."""
        return self.group_failures / max(self.group_images, 1)

    @property
    def error_coverage(self) -> float:
        """EC, the leaf's share of the group's failures; 0 in a group without failures."""
        return self.failures / max(self.group_failures, 1)

    @property
    def p_value(self) -> float:
        """Chance of so many failures, or more, among as many images drawn from the group at random."""
        at_least = self.failures - 1  # sf is the chance of more than that
        return float(hypergeom.sf(at_least, self.group_images, self.group_failures, self.images))


def failure_modes(
    subject: Subject, classifier: Classifier, *, delta: float = 0.1, tau: float = 0.2, seed: int = 0
) -> list[FailureMode]:
    """The failure modes of a model on the subject's test set, most important first (Barlow, section 5).

    The features are the model's own; the paper takes those of an adversarially robust network, which show
    more readily what they stand for.

    Args:
        classifier: the model; neither it nor the subject's model is changed.
        delta: how far a rule's error rate must exceed its group's, at least.
        tau: the share of its group's failures that a rule must cover, at least.
        seed: decides which half of the images chooses rules and which measures them.

    Raises:
        DefuseError: the model has no features to read (see :func:`penultimate_features`), or its logits or
            the test set cannot be used.
    """
    with seeded(seed):
        images = subject.test_images
        predictions = classifier.predict(images.pixels)
        features = penultimate_features(classifier, images.pixels)
    groups = class_groups(subject.classes, images.labels, predictions)
    return find_failure_modes(features, predictions != images.labels, groups, delta=delta, tau=tau, seed=seed)


def class_groups(classes: Sequence[str], labels: Tensor, predictions: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each group's name and members, bool N: all images with a label, then all with a prediction.

    Args:
        labels, predictions: indices into ``classes``, int64 N.
    """
    for kind, indices in (("label", labels), ("prediction", predictions)):
        for index, name in enumerate(classes):
            yield f"{kind} {name}", indices == index


def find_failure_modes(
    features: Tensor,
    failed: Tensor,
    groups: Iterable[tuple[str, Tensor]],
    *,
    delta: float = 0.1,
    tau: float = 0.2,
    seed: int = 0,
) -> list[FailureMode]:
    """The failure modes in groups of images, most important first.

    A leaf is reported where ER > BER + ``delta``, EC > ``tau``, and chance does not explain it: an exact
    hypergeometric test of every leaf measured, at a false discovery rate of 5% (Benjamini and Hochberg
    1995, JRSS B 57, p. 289). Groups with fewer than 10 failures in either half are passed over.

    Args:
        features: float N x F.
        failed: bool N, whether the model is wrong.
        groups: names and members, bool N.
    """
    fits = torch.from_numpy(random_numbers(seed).permutation(len(failed)) % 2 == 0)
    modes: list[FailureMode] = []
    p_values: list[float] = []
    for group, members in groups:
        fitted, measured = members & fits, members & ~fits
        if min(int(failed[half].sum()) for half in (fitted, measured)) < MIN_FAILURES:
            continue
        split = best_split(features[fitted], failed[fitted])
        if split is None:
            continue
        for above, leaf in leaves(split, features[measured], failed[measured]).items():
            modes.append(_failure_mode(group, split, above, leaf))
            p_values.append(leaf.p_value)
    found = [
        mode
        for mode, adjusted in zip(modes, false_discovery_control(p_values), strict=True)
        if adjusted <= FALSE_DISCOVERY_RATE
        and mode.error_rate > mode.base_error_rate + delta
        and mode.error_coverage > tau
    ]
    return sorted(found, key=lambda mode: mode.importance, reverse=True)


def best_split(features: Tensor, failed: Tensor) -> Split | None:
    """The threshold on one feature that tells most about failure, by an exact search over all of them.

    This is a decision tree of depth 1 by entropy (Barlow, section 5) with balanced classes, as in the paper's
    code: failures and successes have the same total weight, however rare failures are. The threshold lies
    halfway between two neighbouring values; of equally good splits the lowest feature number wins, then the
    lowest threshold.

    Args:
        features: float N x F.
        failed: bool N.

    Returns:
        None where nothing can be gained: no feature varies, or all images failed, or none did.
    """
    failures, successes = int(failed.sum()), int((~failed).sum())
    if not failures or not successes:
        return None
    values, order = features.T.contiguous().sort(dim=1)
    # How many failures and successes lie left of a cut after each image but the last: F x (N - 1).
    failures_left = failed[order].cumsum(dim=1)[:, :-1].double()
    successes_left = (~failed)[order].cumsum(dim=1)[:, :-1].double()
    left = _entropy(failures_left / failures / 2, successes_left / successes / 2)
    right = _entropy((failures - failures_left) / failures / 2, (successes - successes_left) / successes / 2)
    # No threshold cuts between equal values. The sum comes first, so that a feature and its mirror image tie.
    gains = torch.where(values[:, :-1] < values[:, 1:], 1 - (left + right), 0)
    feature, cut = divmod(int(gains.argmax()), gains.shape[1])
    gain = gains[feature, cut].item()
    if gain <= 0:
        return None
    return Split(feature, threshold=values[feature, cut : cut + 2].double().mean().item(), gain=gain)


def leaves(split: Split, features: Tensor, failed: Tensor) -> dict[bool, Leaf]:
    """The two leaves of a split over a group: under True the images above the threshold.

    Args:
        features: float N x F.
        failed: bool N.
    """
    above = split.above(features)
    return {
        side: Leaf(
            failures=int(failed[above == side].sum()),
            images=int((above == side).sum()),
            group_failures=int(failed.sum()),
            group_images=len(failed),
        )
        for side in (True, False)
    }


def aler(tree: Iterable[Leaf]) -> float:
    """Average leaf error rate: the sum of ER * EC over all leaves of a tree (Barlow, definition 4).

    Some leaf has at least this error rate; what it exceeds BER by is how much the tree explains.
    """
    return sum(leaf.error_rate * leaf.error_coverage for leaf in tree)


def _entropy(failures: Tensor, successes: Tensor) -> Tensor:
    """Entropy in bits of one side of a cut, times the side's weight.

    With weights f and s that is f log((f + s) / f) + s log((f + s) / s), written so that no side, however
    empty, divides by zero.
    """
    nats: Tensor = entr(failures) + entr(successes) - entr(failures + successes)
    return nats / log(2)


def _failure_mode(group: str, split: Split, above: bool, leaf: Leaf) -> FailureMode:
    return FailureMode(
        group=group,
        feature=split.feature,
        threshold=split.threshold,
        above=above,
        error_rate=leaf.error_rate,
        base_error_rate=leaf.base_error_rate,
        error_coverage=leaf.error_coverage,
        images=leaf.images,
    )
