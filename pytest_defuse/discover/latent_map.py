"""Two-dimensional maps of latent space with training images and failures, as in Defuse's figure 2."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from pytest_defuse.discover.discovery import Discovery

Array = NDArray[np.float64]

TRAINING_POINTS = 1500
"""Maximum number of training images on a map. Our choice; the paper shows 10,000, too many for a page of a report."""
FAILURE_POINTS = 300
"""Maximum number of failures on a map, so that they do not hide the training images. Our choice."""
PERPLEXITY = 30.0
"""Of t-SNE: Defuse, appendix B.5; also scikit-learn's default."""


def latent_map(discovery: Discovery, seed: int) -> tuple[Tensor, Tensor, dict[str, Array]]:
    """Project training codes, failures and the candidates' means by PCA and by t-SNE (van der Maaten & Hinton 2008).

    PCA is fitted only to the training codes, so failures do not influence its axes. The axes of t-SNE have no meaning;
    only neighbourhoods do.

    Returns:
        Positions in the discovery's ``latent_images``, int64 n; positions in its ``failed_draws``, int64 m; and by name
        of the method, float64 (n + m + k) x 2 in [0, 1] with one scale for both axes: these images, these failures, and
        the means of the k candidates' regions, in this order.
    """
    images = _evenly_spaced(len(discovery.latent_images.means), TRAINING_POINTS)
    failures = _evenly_spaced(len(discovery.failed_draws), FAILURE_POINTS)
    training = discovery.latent_images.means[images].double().numpy()
    means = [candidate.region.mean[None] for candidate in discovery.candidates]
    codes = np.concatenate([training, discovery.failed_draws.codes[failures].double().numpy(), *means])
    # Codes that are all equal cannot be projected; t-SNE fails on them.
    if min(training.shape) < 2 or len(codes) <= 3 or training.std(axis=0).max() == 0:
        return images, failures, {}
    pca = PCA(2).fit(training)
    points = pca.transform(codes)
    first, second = pca.explained_variance_ratio_
    projections = {
        "t-SNE": _scaled(_t_sne(codes, points, seed)),
        f"PCA ({first:.0%} + {second:.0%} of the variance)": _scaled(points),
    }
    return images, failures, projections


def _evenly_spaced(count: int, maximum: int) -> Tensor:
    """At most ``maximum`` of the indices from 0 to ``count`` - 1, int64."""
    return torch.linspace(0, count - 1, min(count, maximum)).round().long()


def _t_sne(codes: Array, pca: Array, seed: int) -> Array:
    """t-SNE, started from the PCA scaled to a standard deviation of 1e-4, as in scikit-learn."""
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    start = (1e-4 * pca / pca[:, 0].std()).astype(np.float32)
    points: Array = TSNE(perplexity=perplexity, init=start, random_state=seed % 2**32).fit_transform(codes)
    return points.astype(np.float64)


def _scaled(points: Array) -> Array:
    minimum = points.min(axis=0)
    extent = max(float((points.max(axis=0) - minimum).max()), 1e-12)
    scaled: Array = (points - minimum) / extent
    return scaled
