"""Where failures lie among the training images: two flat maps of latent space, as in Defuse's figure 2."""

import warnings
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
        images: int64 n, which training images are shown.
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
    projections = {"t-SNE": _neighbours(codes, seed)} if len(codes) > 3 else {}
    if min(training.shape) >= 2:
        axes = PCA(2).fit(training)
        first, second = axes.explained_variance_ratio_
        projections[f"PCA ({first:.0%} + {second:.0%} of the variance)"] = axes.transform(codes)
    return LatentMap(images, failures, {name: _scaled(points) for name, points in projections.items()})


def _spread(count: int, most: int) -> Tensor:
    """At most ``most`` of the indices 0 to ``count``, evenly spaced."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _neighbours(codes: Array, seed: int) -> Array:
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # identical codes have no spread to start from
        points: Array = TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(codes)
    return points.astype(np.float64)


def _scaled(points: Array) -> Array:
    low = points.min(axis=0)
    span = max(float((points.max(axis=0) - low).max()), 1e-12)
    return (points - low) / span
