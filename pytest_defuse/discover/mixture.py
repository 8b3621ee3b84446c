"""A Dirichlet-process mixture of Gaussians (Blei & Jordan 2006), fitted to the latent codes of failures."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus
from torch import Tensor

from pytest_defuse.runtime.determinism import derived_seed
from pytest_defuse.runtime.errors import DefuseError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

MIN_LOG_RESPONSIBILITY = -75.0
"""Floor of the unnormalised log-responsibilities. exp(-75) is about 1e-33: far below float64 rounding, and above the
float32 numbers under 1e-38 (subnormal) that slow a CPU down."""
RIDGE = 1e-6
"""Added to the diagonal of the prior covariance, as a fraction of the mean variance, so that it is positive definite.
scikit-learn's ``reg_covar`` has the same value, but in absolute units."""
MIN_RIDGE = 1e-9
"""The ridge if all codes are equal and have no variance. Our choice."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """A fitted mixture of K Gaussians in d dimensions.

    Attributes:
        means: float64 K x d.
        covariances: float64 K x d x d, each positive definite.
        kind_counts: float64 K x C, responsibilities summed over the codes of each kind; all entries sum to n.
        lower_bound: evidence lower bound in nats, up to a constant, in the last iteration.
    """

    means: Array
    covariances: Array
    kind_counts: Array
    lower_bound: float


@dataclass(frozen=True, eq=False)
class Prior:
    """Normal-Wishart prior of each component, and the concentration of the Dirichlet process."""

    mean: Array  # float64 d
    covariance: Array  # float64 d x d, positive definite: the inverse scale matrix of the Wishart distribution
    mean_precision: float  # number of observations that the mean counts for
    degrees_of_freedom: float  # of the Wishart distribution, above d - 1
    concentration: float  # of the stick-breaking weights; small values favour few components

    @staticmethod
    def of(codes: Array, n_components: int) -> "Prior":
        """The defaults of scikit-learn's ``BayesianGaussianMixture``: mean and covariance of the codes, and so on.

        scikit-learn adds ``reg_covar`` to the scatter of every component. Here the ridge that keeps covariances
        positive definite is part of the prior instead, so the updates are exact and the lower bound never falls.
        """
        count, dim = codes.shape
        centred = codes - codes.mean(0)
        covariance = centred.T @ centred / max(1, count - 1)
        ridge = max(RIDGE * np.trace(covariance) / dim, MIN_RIDGE)
        return Prior(codes.mean(0), covariance + ridge * np.eye(dim), 1.0, float(dim), 1 / n_components)


def fit_mixtures(
    codes: Array,
    n_components: int,
    seed: int,
    *,
    kinds: Labels | None = None,
    n_init: int = 1,
    max_iter: int = 200,
    device: torch.device | str = "cpu",
) -> list[Mixture]:
    """Fit a truncated stick-breaking mixture with full covariances from each of ``n_init`` k-means++ starts.

    Args:
        codes: float64 n x d, finite.
        n_components: the truncation K; with fewer codes than that, one component per code.
        seed: with the number of the start, it determines the k-means++ centres.
        kinds: int64 n, from 0 to C - 1, counted per component in ``Mixture.kind_counts``; default: one kind.
        device: where the fit runs; on the CPU for a device without float64 (mps).

    Returns:
        ``n_init`` mixtures, the one with the largest lower bound first.

    Raises:
        DefuseError: no codes, codes that are not finite, ``n_components`` below 1, or unusable ``kinds``.
    """
    _check(codes, n_components, kinds)
    n_components = min(n_components, len(codes))
    prior = Prior.of(codes, n_components)
    starts = (_kmeans_start(codes, n_components, derived_seed(seed, number, 32)) for number in range(n_init))
    mixtures = [fit_from(codes, start, prior, kinds=kinds, max_iter=max_iter, device=device) for start in starts]
    return sorted(mixtures, key=lambda mixture: -mixture.lower_bound)


def fit_from(
    codes: Array,
    start: Array,
    prior: Prior,
    *,
    kinds: Labels | None = None,
    max_iter: int = 200,
    tolerance: float = 1e-3,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Mixture:
    """Fit a mixture by mean-field updates (Bishop 2006, section 10.2; sticks as in Blei & Jordan 2006).

    With the same ``start`` and ``prior`` the result equals scikit-learn's ``BayesianGaussianMixture(reg_covar=0)``
    up to float rounding.

    Args:
        codes: float64 n x d, finite.
        start: initial responsibilities, float64 n x K; each row sums to 1.
        tolerance: stop when an iteration changes the lower bound by less than this, in nats (scikit-learn's ``tol``).
        dtype: of the computations per code; those per component are always float64.

    Raises:
        DefuseError: the variance of the codes is too large for ``dtype``.
    """
    device = torch.device("cpu" if torch.device(device).type == "mps" else device)
    centre = codes.mean(0)
    # The products x_i x_j give second moments about the origin. Far from the origin, subtracting them to get moments
    # about a component's mean would cancel all significant digits, so the codes are centred first.
    points = _Points(
        torch.from_numpy(codes - centre).to(device, dtype).T.contiguous(),
        torch.from_numpy(np.zeros(len(codes), dtype=np.int64) if kinds is None else kinds).to(device),
    )
    prior_mean, prior_covariance = torch.from_numpy(prior.mean - centre), torch.from_numpy(prior.covariance)
    update = partial(_posterior, prior, prior_mean.to(device), prior_covariance.to(device))
    posterior = update(points.statistics(torch.from_numpy(start).to(device, dtype)))
    lower_bound = -math.inf
    for _ in range(max_iter):
        statistics, entropy = points.expected_statistics(posterior.coefficients())
        posterior = update(statistics)
        previous, lower_bound = lower_bound, posterior.lower_bound(entropy)
        if abs(lower_bound - previous) < tolerance:
            break
    return Mixture(
        posterior.means.cpu().numpy() + centre,
        posterior.covariances.cpu().numpy(),
        posterior.kind_counts.cpu().numpy(),
        lower_bound,
    )


@dataclass(frozen=True, eq=False)
class _Points:
    """Centred codes, d x n, and kinds, int64 n, as features Phi = [1, x, x_i x_j (i <= j), kind == c].

    Log-densities are linear in Phi, so an iteration is two matrix products: coefficients @ Phi are log-responsibilities
    up to normalisation, responsibilities @ Phi^T sufficient statistics. The coefficients of kinds are zero.
    """

    codes: Tensor
    kinds: Tensor

    @property
    def chunk(self) -> int:
        dim = len(self.codes)
        # 2 MiB of float64 fit into a CPU's cache, 256 MiB keep a GPU busy.
        values = 2**18 if self.codes.device.type == "cpu" else 2**25
        return max(256, values // (dim * dim // 2 + dim))

    def features(self) -> Iterator[Tensor]:
        """Phi, F x chunk at a time; computed in every iteration, so memory does not grow with d squared."""
        rows, columns = torch.triu_indices(len(self.codes), len(self.codes), device=self.codes.device)
        numbers = torch.arange(int(self.kinds.max()) + 1, device=self.codes.device)[:, None]
        for x, kinds in zip(self.codes.split(self.chunk, dim=1), self.kinds.split(self.chunk), strict=True):
            yield torch.cat([torch.ones_like(x[:1]), x, x[rows] * x[columns], (numbers == kinds).to(x)])

    def statistics(self, responsibilities: Tensor) -> Tensor:
        """Sufficient statistics, float64 K x F, for responsibilities n x K."""
        parts = zip(self.features(), responsibilities.split(self.chunk), strict=True)
        return torch.stack([(phi @ part).T.double() for phi, part in parts]).sum(0)

    def expected_statistics(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Sufficient statistics and entropy, float64, for the responsibilities softmax(coefficients @ Phi)."""
        sums, log_norms = torch.zeros_like(coefficients), coefficients.new_zeros(())
        weights = coefficients.to(self.codes.dtype)
        for phi in self.features():
            scores = weights @ phi
            largest = scores.amax(0)
            scores.sub_(largest).clamp_(min=MIN_LOG_RESPONSIBILITY).exp_()  # in place: these are the largest arrays
            norms = scores.sum(0)
            log_norms += (largest + norms.log()).sum(dtype=torch.float64)
            sums += scores.div_(norms) @ phi.T
        # -sum r log r, because log r = coefficients @ phi - log norm and sums = r @ phi^T.
        return sums, log_norms - (sums * coefficients).sum()


@dataclass(frozen=True, eq=False)
class _Posterior:
    """The variational posterior of all components, float64: Beta for the sticks, Normal-Wishart for the Gaussians."""

    sticks: Tensor  # K x 2, parameters of the Beta distributions
    mean_precisions: Tensor  # K, number of observations that each mean counts for
    means: Tensor  # K x d, centred
    degrees_of_freedom: Tensor  # K
    covariances: Tensor  # K x d x d, inverse of degrees of freedom times scale matrix
    cholesky: Tensor  # K x d x d, lower Cholesky factors of the covariances
    kind_counts: Tensor  # K x C, responsibilities summed by kind

    @property
    def log_determinants(self) -> Tensor:
        """log |scale matrix| of the Wishart distributions, K."""
        log_diagonals = self.cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        return -2 * log_diagonals - self.means.shape[1] * self.degrees_of_freedom.log()

    @property
    def gamma_arguments(self) -> Tensor:
        """(degrees of freedom - i) / 2 for i from 0 to d - 1, K x d: arguments of the multivariate gamma function."""
        degrees = self.degrees_of_freedom
        return (degrees[:, None] - torch.arange(self.means.shape[1], device=degrees.device)) / 2

    def coefficients(self) -> Tensor:
        """Coefficients of Phi in E[log weight + log density], K x F (Bishop, eqs. 10.64-10.67)."""
        dim = self.means.shape[1]
        log_sticks = self.sticks.digamma() - self.sticks.sum(1, keepdim=True).digamma()
        log_weights = log_sticks[:, 0] + log_sticks[:, 1].cumsum(0) - log_sticks[:, 1]
        log_precision = self.gamma_arguments.digamma().sum(1) + dim * math.log(2) + self.log_determinants
        inverse = torch.cholesky_inverse(self.cholesky)
        linear = (inverse @ self.means[:, :, None])[:, :, 0]
        square = (linear * self.means).sum(1)
        constant = log_weights + (log_precision - dim / self.mean_precisions - square - dim * math.log(2 * math.pi)) / 2
        rows, columns = torch.triu_indices(dim, dim, device=inverse.device)
        quadratic = -inverse[:, rows, columns] * torch.where(rows == columns, 0.5, 1.0)
        return torch.cat([constant[:, None], linear, quadratic, torch.zeros_like(self.kind_counts)], dim=1)

    def lower_bound(self, entropy: Tensor) -> float:
        """Evidence lower bound without the terms that no update changes, as in scikit-learn."""
        dim = self.means.shape[1]
        log_scale = self.degrees_of_freedom * (self.log_determinants + dim * math.log(2)) / 2
        log_wishart = (log_scale + self.gamma_arguments.lgamma().sum(1)).sum()
        log_sticks = (self.sticks.lgamma().sum(1) - self.sticks.sum(1).lgamma()).sum()
        return (entropy + log_wishart + log_sticks - dim * self.mean_precisions.log().sum() / 2).item()


def _posterior(prior: Prior, prior_mean: Tensor, prior_covariance: Tensor, statistics: Tensor) -> _Posterior:
    """The posterior for the statistics K x F (Bishop, eqs. 10.58-10.63); the prior's moments are centred."""
    dim = len(prior_mean)
    # An empty component must have a mean too; scikit-learn adds the same constant.
    counts = statistics[:, 0] + 10 * torch.finfo(torch.float64).eps
    means = statistics[:, 1 : 1 + dim] / counts[:, None]
    rows, columns = torch.triu_indices(dim, dim, device=statistics.device)
    moments = statistics.new_empty(len(statistics), dim, dim)
    moments[:, rows, columns] = moments[:, columns, rows] = statistics[:, 1 + dim : 1 + dim + len(rows)]
    mean_precisions = prior.mean_precision + counts
    degrees_of_freedom = prior.degrees_of_freedom + counts
    scatter = moments - counts[:, None, None] * _outer(means)
    shrinkage = (counts * prior.mean_precision / mean_precisions)[:, None, None] * _outer(means - prior_mean)
    covariances = (prior_covariance + scatter + shrinkage) / degrees_of_freedom[:, None, None]
    cholesky, failed = torch.linalg.cholesky_ex(covariances)
    if failed.any():
        raise DefuseError(
            "The covariance of a component is not positive definite in floating point: fit the mixture in float64, "
            "or scale the codes to a standard deviation of about 1."
        )
    counts_after = counts.flip(0).cumsum(0).flip(0) - counts
    return _Posterior(
        sticks=torch.stack([1 + counts, prior.concentration + counts_after], dim=1),
        mean_precisions=mean_precisions,
        means=(prior.mean_precision * prior_mean + counts[:, None] * means) / mean_precisions[:, None],
        degrees_of_freedom=degrees_of_freedom,
        covariances=covariances,
        cholesky=cholesky,
        kind_counts=statistics[:, 1 + dim + len(rows) :],
    )


def _outer(vectors: Tensor) -> Tensor:
    return vectors[:, :, None] * vectors[:, None, :]


def _kmeans_start(codes: Array, n_components: int, seed: int) -> Array:
    """Hard responsibilities n x K: the nearest of K k-means++ centres, the largest cluster first as sticks prefer."""
    points = codes - codes.mean(0)
    centres, _ = kmeans_plusplus(points, n_components, random_state=seed)
    nearest = torch.cdist(torch.from_numpy(points), torch.from_numpy(centres)).argmin(1).numpy()
    order = np.argsort(-np.bincount(nearest, minlength=n_components), kind="stable")
    start: Array = np.eye(n_components)[np.argsort(order)[nearest]]
    return start


def _check(codes: Array, n_components: int, kinds: Labels | None) -> None:
    if codes.ndim != 2 or not codes.size:
        raise DefuseError(f"The mixture got codes of shape {codes.shape}: it needs n x d with n and d of 1 or more.")
    if not (finite := np.isfinite(codes).all(1)).all():
        raise DefuseError(
            f"The mixture got {(~finite).sum()} of {len(codes)} codes with NaN or infinite values, the first in row "
            f"{finite.argmin()}: check what the generator encodes."
        )
    if n_components < 1:
        raise DefuseError(f"The mixture cannot have {n_components} components: give 1 or more.")
    if kinds is not None and (kinds.shape != codes.shape[:1] or kinds.min() < 0):
        raise DefuseError(f"The mixture needs one kind, 0 or more, for each of the {len(codes)} codes.")
