import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture

from pytest_defuse.discover.mixture import Array, Mixture, Prior, fit_from, fit_mixtures
from pytest_defuse.runtime.errors import DefuseError
from tests.examples import fewer_examples

MEANS = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
COUNTS = (1200, 600, 200)


def normal(*shape: int, stage: int = 9) -> Array:
    return np.random.default_rng([0, stage, *shape[:1]]).standard_normal(shape)


def soft_start(count: int, n_components: int) -> Array:
    return np.random.default_rng([1]).dirichlet(np.full(n_components, 0.3), count)


def hard_start(count: int, n_components: int) -> Array:
    return np.eye(n_components)[np.random.default_rng([2]).integers(n_components, size=count)]


@pytest.fixture(scope="module")
def codes() -> Array:
    """Three distant groups with standard deviations 1 and 0.3."""
    groups = [
        mean + np.random.default_rng([0, number]).standard_normal((count, 2)) * [1.0, 0.3]
        for number, (mean, count) in enumerate(zip(MEANS, COUNTS, strict=True))
    ]
    return np.concatenate(groups)


class StartedMixture(BayesianGaussianMixture):
    """scikit-learn's mixture with the initial responsibilities as an attribute; it has no argument for them."""

    responsibilities: Array

    def _initialize_parameters(self, codes: Array, random_state: Any, xp: Any = None) -> None:
        self._initialize(codes, self.responsibilities)


def reference(codes: Array, start: Array, prior: Prior, max_iter: int, tol: float = 0) -> BayesianGaussianMixture:
    mixture = StartedMixture(
        n_components=start.shape[1],
        weight_concentration_prior=prior.concentration,
        mean_prior=prior.mean,
        mean_precision_prior=prior.mean_precision,
        covariance_prior=prior.covariance,
        degrees_of_freedom_prior=prior.degrees_of_freedom,
        reg_covar=0,
        max_iter=max_iter,
        tol=tol,
    )
    mixture.responsibilities = start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter ends it on purpose
        return mixture.fit(codes)


def with_a_constant() -> Array:
    codes = normal(300, 4)
    codes[:, 2] = 3.7
    return codes


CASES = {
    "random": (lambda: normal(500, 4), 8),
    "far from the origin, uneven": (lambda: normal(400, 4) * [1, 0.1, 3, 0.01] + 1000, 6),
    "distant groups": (
        lambda: np.concatenate([normal(150, 3, stage=s) * 0.2 + 3 * normal(3, stage=s) for s in range(5)]),
        9,
    ),
    "duplicate points": (lambda: np.repeat(normal(7, 3), 40, axis=0), 10),
    "all equal": (lambda: np.full((40, 3), 0.1), 5),
    "one component": (lambda: normal(300, 2), 1),
    "one dimension": (lambda: normal(200, 1), 4),
    "as few points as components": (lambda: normal(6, 3), 6),
    "a constant dimension": (with_a_constant, 6),
    "real": (lambda: PCA(10, random_state=0).fit_transform(load_digits().data / 16), 40),
}


@pytest.mark.slow
@pytest.mark.parametrize("start", [hard_start, soft_start])
@pytest.mark.parametrize("case", CASES)
def test_the_same_start_and_priors_give_scikit_learns_mixture(case: str, start: Any) -> None:
    codes, n_components = CASES[case][0](), CASES[case][1]
    prior, responsibilities = Prior.of(codes, n_components), start(len(codes), n_components)
    expected = reference(codes, responsibilities, prior, 60)
    mixture = fit_from(codes, responsibilities, prior, max_iter=60, tolerance=-1)
    assert_allclose(mixture.means, expected.means_, rtol=1e-6, atol=1e-9)
    assert_allclose(mixture.covariances, expected.covariances_, rtol=1e-6, atol=1e-9 * np.abs(prior.covariance).max())
    degrees_of_freedom = prior.degrees_of_freedom + mixture.kind_counts.sum(axis=1)
    assert_allclose(degrees_of_freedom, expected.degrees_of_freedom_, rtol=1e-6)
    assert_allclose(mixture.lower_bound, expected.lower_bound_, rtol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4])
def test_it_stops_where_scikit_learn_stops(codes: Array, tolerance: float) -> None:
    prior, start = Prior.of(codes, 5), soft_start(len(codes), 5)
    stopped = reference(codes, start, prior, 500, tol=tolerance).n_iter_
    maxima = (500, stopped, stopped - 1)
    bounds = [fit_from(codes, start, prior, max_iter=n, tolerance=tolerance).lower_bound for n in maxima]
    assert bounds[0] == bounds[1] > bounds[2]


def test_single_precision_is_close_to_double() -> None:
    codes, n_components = CASES["real"][0](), 20
    prior, start = Prior.of(codes, n_components), soft_start(len(codes), n_components)
    double = fit_from(codes, start, prior, max_iter=10)
    single = fit_from(codes, start, prior, max_iter=10, dtype=torch.float32)
    assert_allclose(single.kind_counts, double.kind_counts, atol=1e-3 * len(codes))
    assert_allclose(single.means, double.means, atol=1e-2)
    assert not np.array_equal(single.means, double.means)


def test_distant_groups_are_found_with_the_counts_of_their_kinds(codes: Array) -> None:
    kinds = np.repeat([0, 1, 1], COUNTS)
    for n_components in (3, 6):
        for mixture in fit_mixtures(codes, n_components, seed=0, kinds=kinds, n_init=2):
            largest = np.argsort(-mixture.kind_counts.sum(axis=1))[:3]
            assert_allclose(mixture.kind_counts[largest], [[1200, 0], [0, 600], [0, 200]], atol=40)
            assert_allclose(mixture.means[largest], MEANS, atol=0.3)
            assert_allclose(mixture.covariances[largest], [np.diag([1.0, 0.09])] * 3, atol=0.35)


def test_the_result_depends_on_the_seed_alone(codes: Array) -> None:
    first = fit_mixtures(codes, 4, seed=2**40, n_init=2)
    np.random.seed(5)
    state = np.random.get_state()[1].tolist()
    second = fit_mixtures(codes, 4, seed=2**40, n_init=2)
    assert np.random.get_state()[1].tolist() == state
    for one, other in zip(first, second, strict=True):
        assert_array_equal(one.means, other.means)
    assert not np.array_equal(fit_mixtures(codes, 4, seed=1)[0].means, fit_mixtures(codes, 4, seed=2)[0].means)


def test_restarts_differ_and_the_best_comes_first() -> None:
    mixtures = fit_mixtures(CASES["real"][0](), 15, 0, n_init=3, max_iter=20)
    lower_bounds = [mixture.lower_bound for mixture in mixtures]
    assert lower_bounds == sorted(lower_bounds, reverse=True)
    assert len(set(lower_bounds)) == 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_components_than_codes(count: int) -> None:
    (mixture,) = fit_mixtures(np.arange(2.0 * count).reshape(count, 2), 50, seed=0)
    assert mixture.means.shape == (count, 2)
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0


def test_equal_codes_still_have_a_covariance() -> None:
    (mixture,) = fit_mixtures(np.ones((40, 3)), 5, seed=0)
    assert_allclose(mixture.means[mixture.kind_counts.sum(axis=1).argmax()], 1)
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0


# Properties that hold for any codes and any start.


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array]:
    numbers = np.random.default_rng([draw(st.integers(0, 2**32))])
    count, dim, n_components = draw(st.integers(2, 60)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    codes = numbers.standard_normal((count, dim)) @ numbers.standard_normal((dim, dim))
    codes[: draw(st.integers(0, count))] = codes[0]  # duplicates
    return codes + draw(st.floats(-100, 100)), numbers.dirichlet(np.full(n_components, 0.5), count)


def fit(codes: Array, start: Array, max_iter: int = 15, **options: Any) -> Mixture:
    return fit_from(codes, start, Prior.of(codes, start.shape[1]), max_iter=max_iter, tolerance=-1, **options)


@fewer_examples(40)
@given(problems())
def test_the_lower_bound_never_falls_and_every_code_is_counted_once(problem: tuple[Array, Array]) -> None:
    codes, start = problem
    kinds = np.arange(len(codes)) % 3
    mixtures = [fit(codes, start, max_iter=number, kinds=kinds) for number in range(1, 11)]
    mixture, lower_bounds = mixtures[-1], [mixture.lower_bound for mixture in mixtures]
    assert (np.diff(lower_bounds) >= -1e-9 * np.abs(lower_bounds[1:]) - 1e-9).all()
    assert_allclose(mixture.kind_counts.sum(0), np.bincount(kinds))
    assert (np.linalg.eigvalsh(mixture.covariances) > 0).all()


@fewer_examples(25)
@given(problems(), st.integers(0, 2**32))
def test_the_order_of_the_codes_does_not_matter(problem: tuple[Array, Array], seed: int) -> None:
    codes, start = problem
    order = np.random.default_rng([seed]).permutation(len(codes))
    one, other = fit(codes, start), fit(codes[order], start[order])
    assert_allclose(one.kind_counts, other.kind_counts, rtol=1e-6)
    assert_allclose(one.means, other.means, rtol=1e-6, atol=1e-6)
    assert_allclose(one.lower_bound, other.lower_bound, rtol=1e-6, atol=1e-6)


@fewer_examples(25)
@given(problems(), st.integers(0, 2**32), st.floats(0.1, 10))
def test_shifted_rotated_and_scaled_codes_give_the_shifted_rotated_and_scaled_mixture(
    problem: tuple[Array, Array], seed: int, scale: float
) -> None:
    codes, start = problem
    dim = codes.shape[1]
    variance = np.trace(np.cov(codes.T).reshape(dim, dim))
    assume(variance > 1e-2)  # equal codes get a constant covariance
    numbers = np.random.default_rng([seed])
    matrix, shift = scale * np.linalg.qr(numbers.standard_normal((dim, dim)))[0], 10 * numbers.standard_normal(dim)
    one, other = fit(codes, start), fit(codes @ matrix.T + shift, start)
    assert_allclose(other.kind_counts, one.kind_counts, rtol=1e-5)
    assert_allclose(other.means, one.means @ matrix.T + shift, rtol=1e-5, atol=1e-5 * scale)
    assert_allclose(other.covariances, matrix @ one.covariances @ matrix.T, rtol=1e-4, atol=1e-5 * scale**2 * variance)


# Bad input.


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((0, 3)), r"got codes of shape \(0, 3\)"),
        (np.zeros((3, 0)), r"got codes of shape \(3, 0\)"),
        (np.zeros(3), r"got codes of shape \(3,\)"),
        (np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, np.nan]]), "got 2 of 3 codes with NaN .* the first in row 1:"),
    ],
)
def test_unusable_codes_are_refused(codes: Array, message: str) -> None:
    with pytest.raises(DefuseError, match=message):
        fit_mixtures(codes, 3, seed=0)


def test_unusable_arguments_are_refused() -> None:
    with pytest.raises(DefuseError, match="cannot have 0 components"):
        fit_mixtures(normal(9, 2), 0, seed=0)
    with pytest.raises(DefuseError, match="one kind, 0 or more, for each of the 9 codes"):
        fit_mixtures(normal(9, 2), 2, seed=0, kinds=np.zeros(8, dtype=np.int64))


def test_a_covariance_that_is_not_positive_definite_is_one_sentence() -> None:
    codes = normal(30, 2)
    prior = replace(Prior.of(codes, 2), covariance=-np.eye(2) * 100)
    with pytest.raises(DefuseError, match="The covariance of a component is not positive definite"):
        fit_from(codes, soft_start(30, 2), prior)
