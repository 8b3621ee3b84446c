"""Distillation: a Dirichlet-process mixture of Gaussians over the codes of failures."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussian components.

    Attributes:
        weights: float64 K, summing to 1 over all components that were fitted.
        means: float64 K x d.
        covariances: float64 K x d x d.
    """

    weights: Array
    means: Array
    covariances: Array


def fit_mixture(codes: Array, components: int, seed: int) -> Mixture:
    """Fit a truncated stick-breaking mixture with full covariances (Blei & Jordan 2006).

    Args:
        codes: float64 n x d, n >= 2.
        components: the truncation K; fewer are fitted where there are fewer codes.
    """
    mixture = BayesianGaussianMixture(
        n_components=min(components, len(codes)),
        weight_concentration_prior_type="dirichlet_process",
        covariance_type="full",
        reg_covar=1e-5,
        max_iter=200,
        random_state=seed % 2**32,
    )
    with warnings.catch_warnings():
        # A mixture that is still improving after 200 iterations is good enough: regions are confirmed afresh.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(codes)
    return Mixture(mixture.weights_, mixture.means_, mixture.covariances_)
