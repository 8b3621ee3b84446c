"""Error rates of a cluster of images in its group (Barlow, definitions 1 to 5), with intervals."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from pytest_defuse.statistics.accuracy import wilson_interval

Interval = tuple[float, float]


@dataclass(frozen=True)
class Cluster:
    """Counts of the images of a group that match a rule; every rate is in [0, 1]."""

    failures: int
    images: int
    group_failures: int
    group_images: int

    @property
    def error_rate(self) -> float:
        """ER, the share of failures in the cluster; 0 if it is empty."""
        return self.failures / max(self.images, 1)

    @property
    def base_error_rate(self) -> float:
        """BER, the share of failures in the group; 0 if it is empty."""
        return self.group_failures / max(self.group_images, 1)

    @property
    def error_coverage(self) -> float:
        """EC, the cluster's share of the group's failures; 0 if the group has none."""
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
        """The one-sided permutation test in closed form (a hypergeometric tail); exact if other images found the rule.

        It is the share of all permutations of the group's failures that put as many or more of them into the cluster.
        """
        from scipy.stats import hypergeom  # slow to load, and the reports of a gate use no p

        # sf(k) is the probability of more than k.
        return float(hypergeom.sf(self.failures - 1, self.group_images, self.group_failures, self.images))

    @property
    def error_rate_interval(self) -> Interval:
        """Wilson's 95% interval of ER."""
        return wilson_interval(self.failures, self.images)

    @property
    def error_coverage_interval(self) -> Interval:
        """Wilson's 95% interval of EC."""
        return wilson_interval(self.failures, self.group_failures)

    @property
    def importance_interval(self) -> Interval:
        """The delta method's 95% interval of IV (see :func:`aler_interval`)."""
        rest = self.group_failures - self.failures, self.group_images - self.images, 0.0
        return _delta_interval([(self.failures, self.images, self.error_rate), rest])


def aler(leaves: Iterable[Cluster]) -> float:
    """ALER, average leaf error rate: the sum of ER * EC over all leaves of a tree (definition 4).

    Some leaf has at least this error rate (proposition 1); ALER - BER measures how much the tree explains.
    """
    return math.fsum(leaf.importance for leaf in leaves)


def aler_interval(leaves: Sequence[Cluster]) -> Interval:
    """The delta method's 95% interval of ALER, for images that are drawn independently.

    Leaf i has k_i failures among n_i images, r_i = k_i / n_i, and there are K failures in all. One more failure in
    leaf i changes ALER = sum of k_i^2 / (n_i K) by (2 r_i - r_i^2 - ALER) / K, one more success by -r_i^2 / K. The
    variance of ALER is the sum of the squares of these changes, weighted by the counts.
    """
    return _delta_interval([(leaf.failures, leaf.images, leaf.error_rate) for leaf in leaves])


def _delta_interval(leaves: Sequence[tuple[int, int, float]]) -> Interval:
    """The interval of the sum of IV over all leaves of a tree: failures, images and error rate of each."""
    failures = sum(failed for failed, _, _ in leaves)
    if not failures:
        return 0.0, 1.0
    value = math.fsum(failed * rate for failed, _, rate in leaves) / failures
    variance = math.fsum(
        failed * (2 * rate - rate**2 - value) ** 2 + (images - failed) * rate**4 for failed, images, rate in leaves
    )
    half_width = NormalDist().inv_cdf(0.975) * math.sqrt(variance) / failures
    return max(0.0, value - half_width), min(1.0, value + half_width)
