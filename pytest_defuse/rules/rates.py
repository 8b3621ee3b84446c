"""How much of a group's failures a cluster of its images holds (Barlow, definitions 1 to 5), with intervals."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from scipy.stats import hypergeom

from pytest_defuse.statistics.accuracy import wilson_interval

Interval = tuple[float, float]


@dataclass(frozen=True)
class Cluster:
    """Images that a rule picks from a group, as counts; every rate is in [0, 1]."""

    failures: int
    images: int
    group_failures: int
    group_images: int

    @property
    def error_rate(self) -> float:
        """ER, the share of failures in the cluster; 0 in an empty one."""
        return self.failures / max(self.images, 1)

    @property
    def base_error_rate(self) -> float:
        """BER, the share of failures in the group; 0 in an empty group."""
        return self.group_failures / max(self.group_images, 1)

    @property
    def error_coverage(self) -> float:
        """EC, the cluster's share of the group's failures; 0 in a group without failures."""
        return self.failures / max(self.group_failures, 1)

    @property
    def increase(self) -> float:
        """ER - BER, in [-1, 1]."""
        return self.error_rate - self.base_error_rate

    @property
    def importance(self) -> float:
        """IV = ER * EC (definition 5)."""
        return self.error_rate * self.error_coverage

    @property
    def p_value(self) -> float:
        """The permutation test of the cluster, in closed form.

        The share of all permutations of the group's failures that put so many of them, or more, into the
        cluster (a hypergeometric tail). Exact where the images did not choose the rule.
        """
        at_least = self.failures - 1  # sf is the chance of more than that
        return float(hypergeom.sf(at_least, self.group_images, self.group_failures, self.images))

    @property
    def error_rate_interval(self) -> Interval:
        """Wilson's 95% interval of ER."""
        return wilson_interval(self.failures, self.images)

    @property
    def base_error_rate_interval(self) -> Interval:
        """Wilson's 95% interval of BER."""
        return wilson_interval(self.group_failures, self.group_images)

    @property
    def error_coverage_interval(self) -> Interval:
        """Wilson's 95% interval of EC."""
        return wilson_interval(self.failures, self.group_failures)

    @property
    def importance_interval(self) -> Interval:
        """The delta method's 95% interval of IV (see :func:`aler_interval`)."""
        rest = Cluster(
            self.group_failures - self.failures, self.group_images - self.images, self.group_failures, self.group_images
        )
        return _delta_interval(self.importance, [self, rest], lambda cluster: cluster is self)


def aler(leaves: Iterable[Cluster]) -> float:
    """Average leaf error rate: the sum of ER * EC over all leaves of a tree (definition 4).

    Some leaf has at least this error rate (proposition 1); what it exceeds BER by is how much the tree explains.
    """
    return math.fsum(leaf.importance for leaf in leaves)


def aler_interval(leaves: Sequence[Cluster]) -> Interval:
    """The delta method's 95% interval of ALER, the images of a group being drawn independently.

    With k_i failures among n_i images in leaf i, r_i = k_i / n_i and K failures in all, ALER = sum of
    k_i^2 / (n_i K) changes by (2 r_i - r_i^2 - ALER) / K with a failure more in leaf i and by -r_i^2 / K with
    a success more. Its variance is the sum of the squares of these, weighted with the counts.
    """
    return _delta_interval(aler(leaves), leaves, lambda _: True)


def _delta_interval(value: float, leaves: Sequence[Cluster], counted: Callable[[Cluster], bool]) -> Interval:
    """The interval of the sum of IV over those leaves of a whole tree that are counted."""
    failures = sum(leaf.failures for leaf in leaves)
    if not failures:
        return 0.0, 1.0
    variance = 0.0
    for leaf in leaves:
        rate = leaf.error_rate if counted(leaf) else 0.0
        by_failure, by_success = 2 * rate - rate**2 - value, -(rate**2)
        variance += leaf.failures * by_failure**2 + (leaf.images - leaf.failures) * by_success**2
    margin = NormalDist().inv_cdf(0.975) * math.sqrt(variance) / failures
    return max(0.0, value - margin), min(1.0, value + margin)
