"""Misclassification regions: Gaussians in latent space, and what fresh draws from them show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.failed_draws import Failures
from pytest_defuse.discover.mixture import Array, Mixture, fit_mixtures
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.determinism import random_numbers


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
        purity: share of its members that are of its label and prediction, in (0, 1].
        stability: share of the mixture's other restarts that found it too, in [0, 1]; 1 if there was but one.
    """

    mean: Array
    covariance: Array
    tau: float
    label: int
    prediction: int
    weight: float
    purity: float = 1.0
    stability: float = 1.0

    def codes(self, count: int, seed: int, *stream: int) -> Tensor:
        """``count`` latent codes from N(mean, tau * covariance), float32, that belong to (seed, stream)."""
        root = np.linalg.cholesky(self.tau * self.covariance)
        e = random_numbers(seed, *stream).standard_normal((count, len(self.mean)))
        return torch.from_numpy(self.mean + e @ root.T).float()

    def overlap(self, other: "Region") -> float:
        """Bhattacharyya coefficient of the two Gaussians as fitted, in [0, 1]; 1 when they are equal."""
        middle = (self.covariance + other.covariance) / 2
        gap = self.mean - other.mean
        logdets = [np.linalg.slogdet(region.covariance)[1] for region in (self, other)]
        distance = gap @ np.linalg.solve(middle, gap) / 8 + (np.linalg.slogdet(middle)[1] - sum(logdets) / 2) / 2
        return min(1.0, float(np.exp(-distance)))

    def merged(self, other: "Region") -> "Region":
        """The Gaussian with the weighted moments of both."""
        weight = self.weight + other.weight
        a, b = self.weight / weight, other.weight / weight
        gap = self.mean - other.mean
        covariance = a * self.covariance + b * other.covariance + a * b * np.outer(gap, gap)
        purity = a * self.purity + b * other.purity
        return replace(self, mean=a * self.mean + b * other.mean, covariance=covariance, weight=weight, purity=purity)

    def same_error(self, other: "Region") -> bool:
        """Whether both have the same label and prediction."""
        return (self.label, self.prediction) == (other.label, other.prediction)

    def among(self, restarts: Sequence[Sequence["Region"]], overlap: float) -> "Region":
        """This region, with the share of ``restarts`` in which one of the same error overlaps it by more."""
        if not restarts:
            return self
        found = [any(self.same_error(r) and self.overlap(r) > overlap for r in regions) for regions in restarts]
        return replace(self, stability=sum(found) / len(found))


def distill(
    failures: Failures, settings: DiscoverySettings, seed: int, device: torch.device | str = "cpu"
) -> list[Region]:
    """Regions of the failures (Defuse, section 3.2), overlapping ones merged, most weight first.

    ``clustering="joint"``: a mixture for each kind of error, a pair (label, prediction), so that a region is one kind.
    It is given no more components than there can be regions: with more, it describes few failures image by image,
    each restart in another way. ``"plain"``: one mixture over all codes, as in the paper; a region's kind is that of
    most of its members' weight.

    Regions below ``min_weight``, or of fewer than ``min_failures`` members, are dropped; so are those without
    a counterpart in most of the other restarts: of their kind, half as large at least, and overlapping by more
    than ``stability``. That removes boundaries which the start alone has drawn. It cannot remove what every restart
    finds in failures without structure, one round cloud, or the same tiles of a box: fresh draws decide on those.

    Raises:
        DefuseError: codes that are not finite.
    """
    groups = _by_kind(failures) if settings.clustering == "joint" else [failures]
    large = [group for group in groups if len(group) >= max(2, settings.min_failures)]
    found = [region for group in large for region in _stable(group, len(failures), settings, seed, device)]
    return sorted(found, key=lambda region: -region.weight)


def merge_overlapping(regions: Iterable[Region], max_overlap: float) -> list[Region]:
    """Merge regions of the same error whose overlap exceeds ``max_overlap``; most weight first."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda region: -region.weight):
        closest = max(filter(region.same_error, kept), key=region.overlap, default=None)
        if closest is not None and region.overlap(closest) > max_overlap:
            kept[kept.index(closest)] = closest.merged(region)
        else:
            kept.append(region)
    return sorted(kept, key=lambda region: -region.weight)


def _by_kind(failures: Failures) -> list[Failures]:
    pairs, kinds = _kinds(failures)
    return [failures[kinds == kind] for kind in range(len(pairs))]


def _kinds(failures: Failures) -> tuple[Tensor, Tensor]:
    """The pairs (label, prediction) that occur, int64 C x 2, and which of them each failure is, int64 n."""
    pairs, kinds = torch.stack([failures.labels, failures.predictions], dim=1).unique(dim=0, return_inverse=True)
    return pairs, kinds


def _stable(
    group: Failures, total: int, settings: DiscoverySettings, seed: int, device: torch.device | str
) -> list[Region]:
    """The regions of one mixture that most of its restarts find; ``total`` is the number of all failures."""
    pairs, kinds = _kinds(group)
    most = len(group) // settings.min_failures if settings.clustering == "joint" else settings.components
    mixtures = fit_mixtures(
        group.codes.double().numpy(),
        min(settings.components, most),
        seed,
        kinds=kinds.numpy(),
        restarts=settings.restarts,
        backend=settings.backend,
        device=device,
    )
    least = max(settings.min_weight, settings.min_failures / total)
    first, *others = (_regions(mixture, pairs, total, least / 2, settings) for mixture in mixtures)
    found = [region.among(others, settings.stability) for region in first if region.weight >= least]
    return [region for region in found if region.stability > 0.5]


def _regions(mixture: Mixture, pairs: Tensor, total: int, least: float, settings: DiscoverySettings) -> list[Region]:
    """The components of at least that weight, each of the kind that most of its members are of; merged."""
    found = []
    for mean, covariance, members in zip(mixture.means, mixture.covariances, mixture.members, strict=True):
        mass = float(members.sum())
        if mass / total >= least:
            label, prediction = pairs[int(members.argmax())].tolist()
            purity = float(members.max()) / mass
            found.append(Region(mean, covariance, settings.tau, label, prediction, mass / total, purity))
    return merge_overlapping(found, settings.max_overlap)
