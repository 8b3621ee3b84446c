"""Evidence for a region's proposed label, in addition to the judges (reference classifiers with a second opinion)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.failed_draws import FailedDraws
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.regions import Region
from pytest_defuse.scenarios.machine import Evidence

NEAREST = 10
"""Nearest training images that are listed; our choice."""


def label_evidence(
    region: Region,
    regions: Sequence[Region],
    failures: FailedDraws,
    latent_images: LatentImages,
    labels: Tensor,
    classes: Sequence[str],
) -> Evidence:
    """The training images around a region, and the labels of those that its failures were drawn around.

    Among the regions of one error, a failure belongs to the one under which it is most likely.

    Args:
        regions: all regions that were distilled from ``failures``.
        labels: int64, class index of each image of the training set.
    """
    offsets = (latent_images.means - torch.from_numpy(region.mean).float()) / latent_images.std
    distances = offsets.norm(dim=1)
    nearest = distances.argsort(stable=True)[:NEAREST]
    members = failures.image_indices[_members(region, regions, failures)]
    sources = Counter(labels[members].tolist())
    return Evidence(
        nearest_images=tuple(latent_images.indices[nearest].tolist()),
        nearest_labels=tuple(classes[label] for label in latent_images.labels[nearest].tolist()),
        nearest_distances=tuple(distances[nearest].tolist()),
        source_labels={classes[label]: count for label, count in sources.most_common()},
    )


def _members(region: Region, regions: Sequence[Region], failures: FailedDraws) -> Tensor:
    """Positions of the failures that belong to a region, int64."""
    same_error = (failures.labels == region.label) & (failures.predictions == region.prediction)
    positions = same_error.nonzero().squeeze(1)
    codes = failures.codes[positions].double().numpy()
    competitors = [other for other in regions if other.same_error(region)]
    log_densities = [
        np.log(other.weight) - 0.5 * (other.mahalanobis(codes) + np.linalg.slogdet(other.covariance)[1])
        for other in competitors
    ]
    return positions[torch.from_numpy(np.argmax(log_densities, axis=0) == competitors.index(region))]
