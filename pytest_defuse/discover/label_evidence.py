"""Evidence for the label that is proposed for a region, beside what the judges see."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.failed_draws import FailedDraws
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.mixture import Array
from pytest_defuse.discover.regions import Region
from pytest_defuse.subject.images import LabelledImages

NEAREST = 10
"""Nearest training images that are listed; our choice."""


@dataclass(frozen=True)
class LabelEvidence:
    """The training images around a region.

    Attributes:
        images: indices in the training set of the images nearest to the region's mean, nearest first.
        labels: their class indices.
        distances: their distances from the mean, in standard deviations of the training codes.
        sources: pairs (class index, number of the region's failures that were drawn around training images of this
            class), largest number first.
    """

    images: tuple[int, ...]
    labels: tuple[int, ...]
    distances: tuple[float, ...]
    sources: tuple[tuple[int, int], ...]


def label_evidence(
    region: Region,
    regions: Sequence[Region],
    failures: FailedDraws,
    latent_images: LatentImages,
    images: LabelledImages,
) -> LabelEvidence:
    """Collect the evidence for a region's label.

    Among the regions of one error, a failure belongs to the one under which it is most likely.

    Args:
        regions: all regions that were distilled from ``failures``.
        images: the training set.
    """
    offsets = (latent_images.means - torch.from_numpy(region.mean).float()) / latent_images.std
    distances = offsets.norm(dim=1)
    nearest = distances.argsort(stable=True)[:NEAREST]
    members = _members(region, regions, failures)
    sources = Counter(images.labels[failures.image_indices[members]].tolist())
    return LabelEvidence(
        images=tuple(latent_images.indices[nearest].tolist()),
        labels=tuple(latent_images.labels[nearest].tolist()),
        distances=tuple(distances[nearest].tolist()),
        sources=tuple(sources.most_common()),
    )


def _members(region: Region, regions: Sequence[Region], failures: FailedDraws) -> Tensor:
    """Positions of the failures that belong to a region, int64."""
    same_error = (failures.labels == region.label) & (failures.predictions == region.prediction)
    positions = same_error.nonzero().squeeze(1)
    codes = failures.codes[positions].double().numpy()
    competitors = [other for other in regions if other.same_error(region)]
    densities = np.stack([_log_density(other, codes) for other in competitors])
    return positions[torch.from_numpy(densities.argmax(axis=0) == competitors.index(region))]


def _log_density(region: Region, codes: Array) -> Array:
    """Log of the region's weighted density up to a constant, float64 n."""
    offsets = codes - region.mean
    mahalanobis = (offsets * np.linalg.solve(region.covariance, offsets.T).T).sum(axis=1)
    density: Array = np.log(region.weight) - 0.5 * (mahalanobis + np.linalg.slogdet(region.covariance)[1])
    return density
