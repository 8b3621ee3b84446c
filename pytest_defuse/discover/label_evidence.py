"""Why a region is proposed under its label: what a reviewer may weigh beside the judges' word."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pytest_defuse.discover.failed_draws import Failures
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.mixture import Array
from pytest_defuse.discover.regions import Region
from pytest_defuse.subject.images import LabelledImages

NEAREST = 10


@dataclass(frozen=True)
class Evidence:
    """Training images that a region lies among.

    Attributes:
        images: positions, in the training set, of the images nearest to the region's mean, nearest first.
        labels: class index of each.
        distances: of each, in standard deviations of the training codes.
        sources: (class index, failures of the region drawn around training images of that class), most first.
    """

    images: tuple[int, ...]
    labels: tuple[int, ...]
    distances: tuple[float, ...]
    sources: tuple[tuple[int, int], ...]


def evidence_for(
    region: Region, regions: Sequence[Region], failures: Failures, located: LatentImages, images: LabelledImages
) -> Evidence:
    """The evidence for a region's label.

    A failure belongs to the region, of those of the same error, under which it is most likely.

    Args:
        regions: all regions that the failures were distilled to.
    """
    scaled = (located.means - torch.from_numpy(region.mean).float()) / located.spread
    distances = scaled.norm(dim=1)
    nearest = distances.argsort(stable=True)[:NEAREST]
    own = _members(region, regions, failures)
    sources = Counter(images.labels[failures.images[own]].tolist())
    return Evidence(
        images=tuple(located.images[nearest].tolist()),
        labels=tuple(located.labels[nearest].tolist()),
        distances=tuple(distances[nearest].tolist()),
        sources=tuple(sources.most_common()),
    )


def _members(region: Region, regions: Sequence[Region], failures: Failures) -> torch.Tensor:
    """Positions of the failures that belong to a region, int64."""
    kind = (failures.labels == region.label) & (failures.predictions == region.prediction)
    positions = kind.nonzero().squeeze(1)
    codes = failures.codes[positions].double().numpy()
    rivals = [other for other in regions if (other.label, other.prediction) == (region.label, region.prediction)]
    densities = np.stack([_log_density(other, codes) for other in rivals])
    return positions[torch.from_numpy(densities.argmax(axis=0) == rivals.index(region))]


def _log_density(region: Region, codes: Array) -> Array:
    """Log of the region's weighted density, but for a constant, float64 n."""
    gaps = codes - region.mean
    solved = np.linalg.solve(region.covariance, gaps.T).T
    density: Array = np.log(region.weight) - 0.5 * (
        (gaps * solved).sum(axis=1) + np.linalg.slogdet(region.covariance)[1]
    )
    return density
