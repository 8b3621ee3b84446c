"""Misclassification regions: Gaussians in latent space, fitted to failures (Defuse, section 3.2)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.failed_draws import FailedDraws
from pytest_defuse.discover.mixture import Array, Mixture, fit_mixtures
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.determinism import Stream, random_numbers

MIN_RECURRENCE = 0.5
"""A region is kept if more than this fraction of the other restarts finds it too: a majority. Our choice."""
RESTART_WEIGHT = 0.5
"""A counterpart in another restart needs at least this fraction of the minimum weight, because weights vary by restart.
Our choice."""


@dataclass(frozen=True, eq=False)
class Region:
    """One kind of error at one place in latent space.

    Attributes:
        mean: float64 d.
        covariance: float64 d x d, as fitted; samples use ``tau`` times it.
        tau: scale of the covariance for samples (the papers': 0.01 to 0.5).
        label: class index that the judges see (reference classifiers that give a second opinion).
        prediction: class index that the model predicts.
        weight: share of all failures that the region represents, in [0, 1].
        recurrence: share of the other restarts of the mixture that found the region too, in [0, 1]; 1 without others.
    """

    mean: Array
    covariance: Array
    tau: float
    label: int
    prediction: int
    weight: float
    recurrence: float = 1.0

    def sample_codes(self, count: int, seed: int, stream: Stream, item: int, draw: int = 0) -> Tensor:
        """``count`` latent codes, float32, from N(mean, tau * covariance); the other arguments determine the noise."""
        cholesky = np.linalg.cholesky(self.tau * self.covariance)
        e = random_numbers(seed, stream, item, draw).standard_normal((count, len(self.mean)))
        return torch.from_numpy(self.mean + e @ cholesky.T).float()

    def mahalanobis(self, codes: Array) -> Array:
        """Squared Mahalanobis distances of codes, float64 n x d, from the mean under the covariance as fitted."""
        offsets = codes - self.mean
        distances: Array = (offsets * np.linalg.solve(self.covariance, offsets.T).T).sum(axis=1)
        return distances

    def overlap(self, other: "Region") -> float:
        """Bhattacharyya coefficient of the two Gaussians as fitted, in [0, 1]; 1 if they are equal."""
        average = (self.covariance + other.covariance) / 2
        offset = self.mean - other.mean
        log_dets = [np.linalg.slogdet(region.covariance)[1] for region in (self, other)]
        mahalanobis = offset @ np.linalg.solve(average, offset)
        distance = mahalanobis / 8 + (np.linalg.slogdet(average)[1] - sum(log_dets) / 2) / 2
        return min(1.0, float(np.exp(-distance)))

    def merge(self, other: "Region") -> "Region":
        """The Gaussian with the weighted moments of both."""
        weight = self.weight + other.weight
        a, b = self.weight / weight, other.weight / weight
        offset = self.mean - other.mean
        covariance = a * self.covariance + b * other.covariance + a * b * np.outer(offset, offset)
        return replace(self, mean=a * self.mean + b * other.mean, covariance=covariance, weight=weight)

    def same_error(self, other: "Region") -> bool:
        """Whether both have the same label and prediction."""
        return (self.label, self.prediction) == (other.label, other.prediction)

    def with_recurrence(self, restarts: Sequence[Sequence["Region"]], min_overlap: float) -> "Region":
        """The region with its recurrence: the share of ``restarts`` with a region of this error that overlaps it."""
        if not restarts:
            return self
        found = [any(self.same_error(r) and self.overlap(r) > min_overlap for r in regions) for regions in restarts]
        return replace(self, recurrence=sum(found) / len(found))


def distill(
    failures: FailedDraws, settings: DiscoverySettings, seed: int, device: torch.device | str = "cpu"
) -> list[Region]:
    """Find the regions that failures come from (Defuse, section 3.2), overlapping ones merged, largest weight first.

    ``clustering="joint"`` fits one mixture per kind of error, a pair (label, prediction). It has no more components
    than there can be regions: with more, it would describe few failures image by image, differently in each restart.
    ``"plain"`` fits one mixture to all codes, as the paper does; most of a region's responsibility decides its kind.

    Regions below ``min_weight`` or with fewer than ``min_failures`` failures are dropped, and so are regions that most
    of the other restarts do not find: of the same kind, at least half as large, with an overlap above ``stability``. In
    failures without structure every restart may find the same regions; fresh draws decide about those.

    Raises:
        DefuseError: codes that are not finite.
    """
    pairs, kinds = _kinds(failures)
    joint = settings.clustering == "joint"
    groups = [failures[kinds == kind] for kind in range(len(pairs))] if joint else [failures]
    large = [group for group in groups if len(group) >= max(2, settings.min_failures)]
    regions = [region for group in large for region in _stable(group, len(failures), settings, seed, device)]
    return sorted(regions, key=lambda region: -region.weight)


def merge_overlapping(regions: Iterable[Region], max_overlap: float) -> list[Region]:
    """Merge regions of the same error that overlap by more than ``max_overlap``; largest weight first."""
    merged: list[Region] = []
    for region in sorted(regions, key=lambda region: -region.weight):
        closest = max(filter(region.same_error, merged), key=region.overlap, default=None)
        if closest is not None and region.overlap(closest) > max_overlap:
            merged[merged.index(closest)] = closest.merge(region)
        else:
            merged.append(region)
    return sorted(merged, key=lambda region: -region.weight)


def _kinds(failures: FailedDraws) -> tuple[Tensor, Tensor]:
    """The distinct pairs (label, prediction), int64 C x 2, and the row of each failure's pair, int64 n."""
    pairs, kinds = torch.stack([failures.labels, failures.predictions], dim=1).unique(dim=0, return_inverse=True)
    return pairs, kinds


def _stable(
    group: FailedDraws, total: int, settings: DiscoverySettings, seed: int, device: torch.device | str
) -> list[Region]:
    """The regions of one mixture that most of its restarts find; ``total`` is the number of all failures."""
    pairs, kinds = _kinds(group)
    maximum = len(group) // settings.min_failures if settings.clustering == "joint" else settings.components
    codes, n_components = group.codes.double().numpy(), min(settings.components, maximum)
    mixtures = fit_mixtures(codes, n_components, seed, kinds=kinds.numpy(), n_init=settings.restarts, device=device)
    min_weight = max(settings.min_weight, settings.min_failures / total)
    best, *others = (_regions(mixture, pairs, total, RESTART_WEIGHT * min_weight, settings) for mixture in mixtures)
    regions = [region.with_recurrence(others, settings.stability) for region in best if region.weight >= min_weight]
    return [region for region in regions if region.recurrence > MIN_RECURRENCE]


def _regions(
    mixture: Mixture, pairs: Tensor, total: int, min_weight: float, settings: DiscoverySettings
) -> list[Region]:
    """The components of at least ``min_weight`` as regions, merged where they overlap."""
    regions = []
    for mean, covariance, counts in zip(mixture.means, mixture.covariances, mixture.kind_counts, strict=True):
        count = float(counts.sum())
        if count / total >= min_weight:
            label, prediction = pairs[int(counts.argmax())].tolist()
            regions.append(Region(mean, covariance, settings.tau, label, prediction, count / total))
    return merge_overlapping(regions, settings.max_overlap)
