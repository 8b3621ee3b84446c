"""Misclassification regions: Gaussians in latent space, and what fresh draws from them show."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.determinism import random_numbers
from pytest_defuse.discover.failures import Failures
from pytest_defuse.discover.mixture import Array, fit_mixture
from pytest_defuse.discover.settings import DiscoverySettings


@dataclass(frozen=True, eq=False)
class Region:
    """One kind of error at one place in latent space.

    Attributes:
        mean: float64 d.
        covariance: float64 d x d, as fitted; draws use ``tau`` times it (method of the papers: tau <= 0.5).
        tau: scale of the covariance for draws.
        label: class index that the judges see.
        prediction: class index that the model says.
        weight: share of all failures that this region stands for, in [0, 1].
    """

    mean: Array
    covariance: Array
    tau: float
    label: int
    prediction: int
    weight: float

    def codes(self, count: int, seed: int, *stream: int) -> Tensor:
        """``count`` latent codes from N(mean, tau * covariance), float32, that belong to (seed, stream)."""
        root = np.linalg.cholesky(self.tau * self.covariance)
        e = random_numbers(seed, *stream).standard_normal((count, len(self.mean)))
        return torch.from_numpy(self.mean + e @ root.T).float()

    def overlap(self, other: "Region") -> float:
        """Bhattacharyya coefficient of the two sampling distributions, in [0, 1]; 1 when they are equal."""
        middle = (self.tau * self.covariance + other.tau * other.covariance) / 2
        gap = self.mean - other.mean
        logdets = [
            np.linalg.slogdet(self.tau * self.covariance)[1],
            np.linalg.slogdet(other.tau * other.covariance)[1],
        ]
        distance = gap @ np.linalg.solve(middle, gap) / 8 + (np.linalg.slogdet(middle)[1] - sum(logdets) / 2) / 2
        return min(1.0, float(np.exp(-distance)))

    def merged(self, other: "Region") -> "Region":
        """The Gaussian with the weighted moments of both."""
        weight = self.weight + other.weight
        a, b = self.weight / weight, other.weight / weight
        gap = self.mean - other.mean
        covariance = a * self.covariance + b * other.covariance + a * b * np.outer(gap, gap)
        return Region(a * self.mean + b * other.mean, covariance, self.tau, self.label, self.prediction, weight)


def distill(failures: Failures, settings: DiscoverySettings, seed: int) -> list[Region]:
    """Regions of the failures, most weight first.

    One mixture a pair (label, prediction), so that a region is one kind of error. Components below
    ``min_weight`` of their mixture, or standing for fewer than ``min_failures`` failures, are dropped.
    """
    regions = []
    for label, prediction in _pairs(failures):
        group = failures[(failures.labels == label) & (failures.predictions == prediction)]
        if len(group) < max(2, settings.min_failures):
            continue
        mixture = fit_mixture(group.codes.double().numpy(), settings.components, seed)
        for weight, mean, covariance in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
            if weight >= settings.min_weight and weight * len(group) >= settings.min_failures:
                share = float(weight) * len(group) / len(failures)
                regions.append(Region(mean, covariance, settings.tau, label, prediction, share))
    return sorted(regions, key=lambda region: -region.weight)


def merge_overlapping(regions: Iterable[Region], max_overlap: float) -> list[Region]:
    """Merge regions of the same error whose overlap exceeds ``max_overlap``; most weight first."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda region: -region.weight):
        same = [k for k in kept if (k.label, k.prediction) == (region.label, region.prediction)]
        closest = max(same, key=region.overlap, default=None)
        if closest is not None and region.overlap(closest) > max_overlap:
            kept[kept.index(closest)] = closest.merged(region)
        else:
            kept.append(region)
    return sorted(kept, key=lambda region: -region.weight)


def _pairs(failures: Failures) -> list[tuple[int, int]]:
    return sorted(set(zip(failures.labels.tolist(), failures.predictions.tolist(), strict=True)))
