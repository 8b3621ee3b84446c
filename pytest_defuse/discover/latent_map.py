"""Where failures lie among the training images: two flat maps of latent space, as in Defuse's figure 2."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from pytest_defuse.discover.discovery import Discovery

Array = NDArray[np.float64]

TRAINING_POINTS = 1500
FAILURE_POINTS = 300
PERPLEXITY = 30.0
"""As in the paper, appendix B.5; its 10,000 training codes are more than a page can show."""


@dataclass(frozen=True, eq=False)
class LatentMap:
    """A sample of the codes of a discovery, projected to the plane.

    Attributes:
        images: int64 n, which of the discovery's ``located`` images are shown.
        failures: int64 m, which failures of the discovery are shown.
        projections: by name of the method, float64 (n + m + k) x 2 in [0, 1]: training images, failures, and
            the means of the k candidates' regions, in this order. One scale for both axes.
    """

    images: Tensor
    failures: Tensor
    projections: Mapping[str, Array]


def latent_map(discovery: Discovery, seed: int) -> LatentMap:
    """Project training codes, failures and candidates' means by PCA and by t-SNE (van der Maaten & Hinton 2008).

    PCA's axes are those of the training codes alone, so failures cannot bend them. t-SNE knows no axes:
    only who lies beside whom means anything there.
    """
    images = _spread(len(discovery.located.means), TRAINING_POINTS)
    failures = _spread(len(discovery.found), FAILURE_POINTS)
    training = discovery.located.means[images].double().numpy()
    means = [candidate.region.mean[None] for candidate in discovery.candidates]
    codes = np.concatenate([training, discovery.found.codes[failures].double().numpy(), *means])
    projections = {}
    # Codes without any spread have no map; t-SNE would even crash on them.
    if min(training.shape) >= 2 and len(codes) > 3 and training.std(axis=0).max() > 0:
        axes = PCA(2).fit(training)
        flat = axes.transform(codes)
        first, second = axes.explained_variance_ratio_
        projections = {
            "t-SNE": _neighbours(codes, flat, seed),
            f"PCA ({first:.0%} + {second:.0%} of the variance)": flat,
        }
    return LatentMap(images, failures, {name: _scaled(points) for name, points in projections.items()})


def _spread(count: int, most: int) -> Tensor:
    """At most ``most`` of the indices 0 to ``count``, evenly spaced."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _neighbours(codes: Array, flat: Array, seed: int) -> Array:
    """t-SNE, started from the PCA as its authors advise."""
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    start = (1e-4 * flat / flat[:, 0].std()).astype(np.float32)
    points: Array = TSNE(perplexity=perplexity, init=start, random_state=seed % 2**32).fit_transform(codes)
    return points.astype(np.float64)


def _scaled(points: Array) -> Array:
    low = points.min(axis=0)
    span = max(float((points.max(axis=0) - low).max()), 1e-12)
    scaled: Array = (points - low) / span
    return scaled
