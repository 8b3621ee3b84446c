"""Distillation: a Dirichlet-process mixture of Gaussians over the codes of failures (Blei & Jordan 2006)."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture
from torch import Tensor

from pytest_defuse.runtime.determinism import random_numbers
from pytest_defuse.runtime.errors import DefuseError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

LEAST = -75.0
"""Least log-responsibility, before norming: far below rounding, and above the denormal numbers that slow a CPU down."""
RIDGE = 1e-6
"""Share of the mean variance that the prior covariance gets on its diagonal: no direction is without width."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussian components, and how they were come by.

    Attributes:
        weights: float64 K, summing to 1 over all components that were fitted.
        means: float64 K x d.
        covariances: float64 K x d x d, each positive definite.
        degrees: float64 K, degrees of freedom of each component's Wishart posterior.
        members: float64 K x C, sums of responsibilities over the codes of each kind; all entries sum to n.
        bounds: the evidence lower bound in nats, up to a constant, after each iteration.
        converged: whether the last iteration raised the bound by less than the tolerance.
    """

    weights: Array
    means: Array
    covariances: Array
    degrees: Array
    members: Array
    bounds: tuple[float, ...]
    converged: bool


@dataclass(frozen=True, eq=False)
class Prior:
    """Normal-Wishart prior of each component, and the Dirichlet process's concentration.

    Attributes:
        mean: float64 d; ``precision`` says how many observations it is worth.
        covariance: float64 d x d, positive definite; the inverse scale matrix of the Wishart distribution.
        degrees: its degrees of freedom, above d - 1.
        concentration: of the sticks; small values ask for few components.
    """

    mean: Array
    covariance: Array
    precision: float
    degrees: float
    concentration: float

    @staticmethod
    def of(codes: Array, components: int) -> "Prior":
        """scikit-learn's defaults: the codes' own mean and covariance.

        Unlike scikit-learn's ``reg_covar``, which is added to every component's scatter, the ridge that keeps
        covariances positive definite is part of the prior: so the updates are exact and the bound never falls.
        """
        count, size = codes.shape
        apart = codes - codes.mean(0)
        covariance = apart.T @ apart / max(1, count - 1)
        ridge = max(RIDGE * np.trace(covariance) / size, 1e-9)
        return Prior(codes.mean(0), covariance + ridge * np.eye(size), 1.0, float(size), 1 / components)


def fit_mixtures(
    codes: Array,
    components: int,
    seed: int,
    *,
    kinds: Labels | None = None,
    restarts: int = 1,
    iterations: int = 200,
    backend: str = "torch",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> list[Mixture]:
    """Fit a truncated stick-breaking mixture with full covariances, from ``restarts`` k-means++ starts.

    Args:
        codes: float64 n x d, finite.
        components: the truncation K; fewer are fitted where there are fewer codes.
        seed: it and the number of the restart decide the start.
        kinds: int64 n, from 0 to C - 1; what ``Mixture.members`` counts. Without it all are of one kind.
        backend: ``torch``, or ``scikit-learn``: its ``BayesianGaussianMixture``, on the CPU.
        device: where the codes are; the mixture of a device without float64 (mps) is computed on the CPU.
        dtype: of what is computed a code; what is computed a component is always float64.

    Returns:
        one mixture a restart, the one with the largest lower bound first.

    Raises:
        DefuseError: no codes, codes that are not finite, no components.
    """
    _check(codes, components, kinds)
    kinds = np.zeros(len(codes), dtype=np.int64) if kinds is None else kinds
    components = min(components, len(codes))
    prior = Prior.of(codes, components)

    def fitted(restart: int) -> Mixture:
        if backend == "scikit-learn":
            return _scikit_learn(codes, components, seed + restart, prior, kinds, iterations)
        start = _start(codes, components, random_numbers(seed, restart))
        return variational(codes, start, prior, kinds=kinds, iterations=iterations, device=device, dtype=dtype)

    return sorted(map(fitted, range(restarts)), key=lambda mixture: -mixture.bounds[-1])


def variational(
    codes: Array,
    start: Array,
    prior: Prior,
    *,
    kinds: Labels | None = None,
    iterations: int = 200,
    tolerance: float = 1e-3,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Mixture:
    """Mean-field updates (Bishop 2006, section 10.2, with Blei & Jordan's sticks) from given responsibilities.

    With the same ``start`` and ``prior`` the result is scikit-learn's ``BayesianGaussianMixture(reg_covar=0)``
    up to float rounding.

    Args:
        codes, start: float64 n x d, and responsibilities, float64 n x K, rows summing to 1.
        tolerance: the bound's gain in nats below which the iteration stops.

    Raises:
        DefuseError: codes whose spread is too large for ``dtype``.
    """
    device = torch.device("cpu" if torch.device(device).type == "mps" else device)
    centre = codes.mean(0)
    # A product with x_i x_j holds second moments about the origin, from which those about a component's mean are
    # a difference: near equal numbers, all digits lost, when the codes are far from the origin. So they are centred.
    points = _Points(
        torch.from_numpy(codes - centre).to(device, dtype).T.contiguous(),
        torch.from_numpy(np.zeros(len(codes), dtype=np.int64) if kinds is None else kinds).to(device),
    )
    beliefs = _Beliefs(prior, centre, device)
    posterior = beliefs.updated(points.sums(torch.from_numpy(start).to(device, dtype)))
    bounds: list[float] = []
    converged = False
    while len(bounds) < iterations and not converged:
        sums, entropy = points.expected(posterior.coefficients())
        posterior = beliefs.updated(sums)
        bounds.append(posterior.bound(entropy))
        converged = len(bounds) > 1 and abs(bounds[-1] - bounds[-2]) < tolerance
    return posterior.mixture(centre, tuple(bounds), converged)


@dataclass(frozen=True, eq=False)
class _Points:
    """Codes as features Phi = [1, x, x_i x_j (i <= j), kind is c], in which log-densities are linear.

    So each iteration is two matrix products: Phi times the components' coefficients, whose softmax are the
    responsibilities, and the responsibilities times Phi, the sufficient statistics. Kinds are only counted: their
    coefficients are zero.

    Attributes:
        codes: d x n, centred.
        kinds: int64 n.
    """

    codes: Tensor
    kinds: Tensor

    @property
    def chunk(self) -> int:
        """Codes at once: on a CPU about as many as its cache holds, elsewhere enough to keep the device busy."""
        size = len(self.codes)
        return max(256, (2**18 if self.codes.device.type == "cpu" else 2**25) // (size * size // 2 + size))

    def features(self) -> Iterator[Tensor]:
        """Phi, a chunk of its columns at a time: made anew each time, so memory does not grow with d squared."""
        rows, columns = torch.triu_indices(len(self.codes), len(self.codes), device=self.codes.device)
        names = torch.arange(int(self.kinds.max()) + 1, device=self.codes.device)[:, None]
        for x, kinds in zip(self.codes.split(self.chunk, dim=1), self.kinds.split(self.chunk), strict=True):
            yield torch.cat([torch.ones_like(x[:1]), x, x[rows] * x[columns], (names == kinds).to(x)])

    def sums(self, responsibilities: Tensor) -> Tensor:
        """Sufficient statistics, float64 K x F, of given responsibilities n x K."""
        parts = zip(self.features(), responsibilities.split(self.chunk), strict=True)
        return torch.stack([(phi @ part).T.double() for phi, part in parts]).sum(0)

    def expected(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Sufficient statistics and entropy, float64, of the responsibilities softmax(coefficients @ Phi)."""
        sums, log_norms = torch.zeros_like(coefficients), coefficients.new_zeros(())
        weights = coefficients.to(self.codes.dtype)
        for phi in self.features():
            scores = weights @ phi
            top = scores.amax(0)
            scores.sub_(top).clamp_(min=LEAST).exp_()  # in place: these arrays are the largest
            norms = scores.sum(0)
            log_norms += (top + norms.log()).sum(dtype=torch.float64)
            sums += scores.div_(norms) @ phi.T
        # -sum r log r, since log r = coefficients @ phi - log norm and the sums are r @ phi.
        return sums, log_norms - (sums * coefficients).sum()


@dataclass(frozen=True, eq=False)
class _Posterior:
    """q of all components, in float64: Beta(sticks) and Normal-Wishart.

    Attributes:
        sticks: K x 2.
        precisions: K, observations that each mean is worth.
        means: K x d, centred.
        degrees: K.
        covariances: K x d x d, inverse of degrees * scale matrix.
        roots: K x d x d, their lower Cholesky factors.
        members: K x C, the responsibilities summed by kind.
    """

    sticks: Tensor
    precisions: Tensor
    means: Tensor
    degrees: Tensor
    covariances: Tensor
    roots: Tensor
    members: Tensor

    @property
    def log_determinants(self) -> Tensor:
        """log |scale matrix| of each component's Wishart distribution, K."""
        log_roots = self.roots.diagonal(dim1=1, dim2=2).log().sum(1)
        return -2 * log_roots - self.means.shape[1] * self.degrees.log()

    def coefficients(self) -> Tensor:
        """Of Phi in E[log weight + log density], K x F (Bishop's eqs. 10.64-10.67)."""
        size = self.means.shape[1]
        log_sticks = self.sticks.digamma() - self.sticks.sum(1, keepdim=True).digamma()
        log_weights = log_sticks[:, 0] + log_sticks[:, 1].cumsum(0) - log_sticks[:, 1]
        halves = (self.degrees[:, None] - torch.arange(size, device=self.degrees.device)) / 2
        log_precision = halves.digamma().sum(1) + size * math.log(2) + self.log_determinants
        inverse = torch.cholesky_inverse(self.roots)
        slopes = (inverse @ self.means[:, :, None])[:, :, 0]
        square = (slopes * self.means).sum(1)
        constant = log_weights + (log_precision - size / self.precisions - square - size * math.log(2 * math.pi)) / 2
        rows, columns = torch.triu_indices(size, size, device=inverse.device)
        quadratic = -inverse[:, rows, columns] * torch.where(rows == columns, 0.5, 1.0)
        return torch.cat([constant[:, None], slopes, quadratic, torch.zeros_like(self.members)], dim=1)

    def bound(self, entropy: Tensor) -> float:
        """The evidence lower bound, as scikit-learn has it: without what no update changes."""
        size = self.means.shape[1]
        halves = (self.degrees[:, None] - torch.arange(size, device=self.degrees.device)) / 2
        log_wishart = (self.degrees * (self.log_determinants + size * math.log(2)) / 2 + halves.lgamma().sum(1)).sum()
        log_sticks = (self.sticks.lgamma().sum(1) - self.sticks.sum(1).lgamma()).sum()
        return (entropy + log_wishart + log_sticks - size * self.precisions.log().sum() / 2).item()

    def mixture(self, centre: Array, bounds: tuple[float, ...], converged: bool) -> Mixture:
        """What remains of it: expectations, with means where the codes were."""
        first, rest = (self.sticks / self.sticks.sum(1, keepdim=True)).T
        weights = first * torch.cat([torch.ones_like(rest[:1]), rest[:-1].cumprod(0)])
        parts = weights / weights.sum(), self.means, self.covariances, self.degrees, self.members
        weights_, means, covariances, degrees, members = (part.cpu().numpy() for part in parts)
        return Mixture(weights_, means + centre, covariances, degrees, members, bounds, converged)


class _Beliefs:
    """The prior on the codes' device, and its update by sufficient statistics."""

    def __init__(self, prior: Prior, centre: Array, device: torch.device) -> None:
        self.prior = prior
        self.mean = torch.from_numpy(prior.mean - centre).to(device)
        self.covariance = torch.from_numpy(prior.covariance).to(device)

    def updated(self, sums: Tensor) -> _Posterior:
        """The posterior given the statistics K x F (Bishop's eqs. 10.58-10.63)."""
        size = len(self.mean)
        # A component without members has a mean all the same; the constant is scikit-learn's.
        counts = sums[:, 0] + 10 * torch.finfo(torch.float64).eps
        means = sums[:, 1 : 1 + size] / counts[:, None]
        rows, columns = torch.triu_indices(size, size, device=sums.device)
        moments = sums.new_empty(len(sums), size, size)
        moments[:, rows, columns] = moments[:, columns, rows] = sums[:, 1 + size : 1 + size + len(rows)]
        members = sums[:, 1 + size + len(rows) :]
        precisions = self.prior.precision + counts
        degrees = self.prior.degrees + counts
        shift = means - self.mean
        scatter = moments - counts[:, None, None] * _outer(means)
        pull = (counts * self.prior.precision / precisions)[:, None, None] * _outer(shift)
        covariances = (self.covariance + scatter + pull) / degrees[:, None, None]
        roots, failed = torch.linalg.cholesky_ex(covariances)
        if failed.any():
            raise DefuseError(
                "A component's covariance is not positive definite in floating point: fit the mixture in float64, or "
                "scale the codes to a spread of about 1."
            )
        later = counts.flip(0).cumsum(0).flip(0) - counts
        return _Posterior(
            sticks=torch.stack([1 + counts, self.prior.concentration + later], dim=1),
            precisions=precisions,
            means=(self.prior.precision * self.mean + counts[:, None] * means) / precisions[:, None],
            degrees=degrees,
            covariances=covariances,
            roots=roots,
            members=members,
        )


def _outer(vectors: Tensor) -> Tensor:
    return vectors[:, :, None] * vectors[:, None, :]


def _start(codes: Array, components: int, numbers: np.random.Generator) -> Array:
    """Hard responsibilities n x K: the nearest of K k-means++ centres, largest first, as sticks prefer it."""
    points = codes - codes.mean(0)
    centres, _ = kmeans_plusplus(points, components, random_state=int(numbers.integers(2**32)))
    nearest = torch.cdist(torch.from_numpy(points), torch.from_numpy(centres)).argmin(1).numpy()
    order = np.argsort(-np.bincount(nearest, minlength=components), kind="stable")
    start: Array = np.eye(components)[np.argsort(order)[nearest]]
    return start


def _scikit_learn(codes: Array, components: int, seed: int, prior: Prior, kinds: Labels, iterations: int) -> Mixture:
    mixture = BayesianGaussianMixture(
        n_components=components,
        weight_concentration_prior_type="dirichlet_process",
        covariance_type="full",
        weight_concentration_prior=prior.concentration,
        mean_prior=prior.mean,
        mean_precision_prior=prior.precision,
        covariance_prior=prior.covariance,
        degrees_of_freedom_prior=prior.degrees,
        reg_covar=0,
        max_iter=iterations,
        random_state=seed % 2**32,
    )
    with warnings.catch_warnings():
        # A mixture that is still improving at the end is good enough: regions are confirmed afresh.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(codes)
    return Mixture(
        mixture.weights_,
        mixture.means_,
        mixture.covariances_,
        mixture.degrees_of_freedom_,
        mixture.predict_proba(codes).T @ np.eye(kinds.max() + 1)[kinds],
        tuple(mixture.lower_bounds_),
        bool(mixture.converged_),
    )


def _check(codes: Array, components: int, kinds: Labels | None) -> None:
    if codes.ndim != 2 or not codes.size:
        raise DefuseError(f"The mixture was given no codes: an array of shape {codes.shape}; it needs n x d, n >= 1.")
    if not (finite := np.isfinite(codes).all(1)).all():
        raise DefuseError(
            f"The mixture was given {(~finite).sum()} of {len(codes)} codes that hold NaN or infinity, the first at "
            f"row {finite.argmin()}: check what the generator encodes."
        )
    if components < 1:
        raise DefuseError(f"The mixture was asked for {components} components: give 1 or more.")
    if kinds is not None and (kinds.shape != codes.shape[:1] or kinds.min() < 0):
        raise DefuseError(f"The mixture needs a kind of 0 or more for each of {len(codes)} codes.")
