import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import BayesianGaussianMixture

from pytest_defuse.discover.mixture import Array, Mixture, Prior, fit_mixtures, variational
from pytest_defuse.runtime.determinism import random_numbers
from pytest_defuse.runtime.errors import DefuseError

MEANS = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
COUNTS = (1200, 600, 200)


def normal(*shape: int, stream: int = 9) -> Array:
    return random_numbers(0, stream, *shape[:1]).standard_normal(shape)


def soft_start(count: int, components: int, stream: int = 0) -> Array:
    return random_numbers(1, stream).dirichlet(np.full(components, 0.3), count)


def hard_start(count: int, components: int) -> Array:
    return np.eye(components)[random_numbers(2).integers(components, size=count)]


@pytest.fixture(scope="module")
def codes() -> Array:
    """Three groups far from each other, of standard deviations 1 and 0.3."""
    groups = [
        mean + random_numbers(0, number).standard_normal((count, 2)) * [1.0, 0.3]
        for number, (mean, count) in enumerate(zip(MEANS, COUNTS, strict=True))
    ]
    return np.concatenate(groups)


class GivenStart(BayesianGaussianMixture):
    """scikit-learn's mixture from given responsibilities, which it has no argument for."""

    def start_from(self, responsibilities: Array) -> "GivenStart":
        self.responsibilities = responsibilities
        return self

    def _initialize_parameters(self, X: Array, random_state: Any, xp: Any = None) -> None:  # noqa: N803
        self._initialize(X, self.responsibilities)


def reference(codes: Array, start: Array, prior: Prior, iterations: int) -> BayesianGaussianMixture:
    mixture = GivenStart(
        n_components=start.shape[1],
        weight_concentration_prior=prior.concentration,
        mean_prior=prior.mean,
        mean_precision_prior=prior.precision,
        covariance_prior=prior.covariance,
        degrees_of_freedom_prior=prior.degrees,
        reg_covar=0,
        max_iter=iterations,
        tol=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it has not converged
        return mixture.start_from(start).fit(codes)


def with_a_constant() -> Array:
    codes = normal(300, 4)
    codes[:, 2] = 3.7
    return codes


CASES = {
    "random": (lambda: normal(500, 4), 8),
    "far from the origin, uneven": (lambda: normal(400, 4) * [1, 0.1, 3, 0.01] + 1000, 6),
    "groups": (lambda: np.concatenate([normal(150, 3, stream=s) * 0.2 + 3 * normal(3, stream=s) for s in range(5)]), 9),
    "duplicate points": (lambda: np.repeat(normal(7, 3), 40, axis=0), 10),
    "all equal": (lambda: np.full((40, 3), 0.1), 5),
    "one component": (lambda: normal(300, 2), 1),
    "one dimension": (lambda: normal(200, 1), 4),
    "as few points as components": (lambda: normal(6, 3), 6),
    "a constant dimension": (with_a_constant, 6),
    "real": (lambda: PCA(10, random_state=0).fit_transform(load_digits().data / 16), 40),
}


@pytest.mark.parametrize("start", [hard_start, soft_start])
@pytest.mark.parametrize("case", CASES)
def test_the_same_start_and_priors_give_scikit_learns_mixture(case: str, start: Any) -> None:
    codes, components = CASES[case][0](), CASES[case][1]
    prior, responsibilities = Prior.of(codes, components), start(len(codes), components)
    expected = reference(codes, responsibilities, prior, 60)
    found = variational(codes, responsibilities, prior, iterations=60, tolerance=-1)
    assert_allclose(found.weights, expected.weights_, rtol=1e-6, atol=1e-12)
    assert_allclose(found.means, expected.means_, rtol=1e-6, atol=1e-9)
    assert_allclose(found.covariances, expected.covariances_, rtol=1e-6, atol=1e-9 * np.abs(prior.covariance).max())
    assert_allclose(found.degrees, expected.degrees_of_freedom_, rtol=1e-6)
    assert_allclose(found.bounds, expected.lower_bounds_, rtol=1e-6)
    assert not found.converged


def test_it_stops_where_scikit_learn_stops(codes: Array) -> None:
    prior, start = Prior.of(codes, 5), soft_start(len(codes), 5)
    found = variational(codes, start, prior, iterations=500, tolerance=1e-3)
    expected = reference(codes, start, prior, 500).lower_bounds_
    gains = np.abs(np.diff(expected))
    assert found.converged
    assert len(found.bounds) == 2 + int(np.flatnonzero(gains < 1e-3)[0])


def test_single_precision_is_close_to_double() -> None:
    codes, components = CASES["real"][0](), 20
    prior, start = Prior.of(codes, components), soft_start(len(codes), components)
    double = variational(codes, start, prior, iterations=10)
    single = variational(codes, start, prior, iterations=10, dtype=torch.float32)
    assert_allclose(single.weights, double.weights, atol=1e-3)
    assert_allclose(single.means, double.means, atol=1e-2)
    assert not np.array_equal(single.means, double.means)


def test_groups_far_from_each_other_are_found(codes: Array) -> None:
    for mixture in fit_mixtures(codes, 6, seed=0, restarts=2):
        found = np.argsort(-mixture.weights)[:3]
        assert_allclose(mixture.weights[found], [0.6, 0.3, 0.1], atol=0.02)
        assert_allclose(mixture.means[found], MEANS, atol=0.3)
        assert_allclose(mixture.covariances[found], [np.diag([1.0, 0.09])] * 3, atol=0.35)


@pytest.mark.parametrize("backend", ["torch", "scikit-learn"])
def test_both_backends_find_the_same_groups_and_say_the_same_of_them(codes: Array, backend: Any) -> None:
    kinds = np.repeat([0, 1, 1], COUNTS)
    (mixture,) = fit_mixtures(codes, 3, seed=0, kinds=kinds, backend=backend)
    found = np.argsort(-mixture.weights)
    assert_allclose(mixture.members[found], [[1200, 0], [0, 600], [0, 200]], atol=1)
    assert_allclose(mixture.means[found], MEANS, atol=0.3)
    assert mixture.degrees.shape == (3,)
    assert mixture.converged


def test_the_seed_alone_decides(codes: Array) -> None:
    first = fit_mixtures(codes, 4, seed=2**40, restarts=2)
    np.random.seed(5)
    state = np.random.get_state()[1].tolist()
    second = fit_mixtures(codes, 4, seed=2**40, restarts=2)
    assert np.random.get_state()[1].tolist() == state
    for one, other in zip(first, second, strict=True):
        assert_array_equal(one.means, other.means)
    assert not np.array_equal(fit_mixtures(codes, 4, seed=1)[0].means, fit_mixtures(codes, 4, seed=2)[0].means)


def test_restarts_differ_and_the_best_comes_first() -> None:
    bounds = [mixture.bounds[-1] for mixture in fit_mixtures(CASES["real"][0](), 15, 0, restarts=3, iterations=20)]
    assert bounds == sorted(bounds, reverse=True)
    assert len(set(bounds)) == 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_components_than_codes(count: int) -> None:
    (mixture,) = fit_mixtures(np.arange(2.0 * count).reshape(count, 2), 50, seed=0)
    assert mixture.means.shape == (count, 2)
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0


def test_equal_codes_still_have_a_covariance() -> None:
    (mixture,) = fit_mixtures(np.ones((40, 3)), 5, seed=0)
    assert_allclose(mixture.means[mixture.weights.argmax()], 1)
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0


@pytest.mark.parametrize("backend", ["torch", "scikit-learn"])
def test_a_mixture_that_has_not_settled_is_no_warning(backend: Any, recwarn: pytest.WarningsRecorder) -> None:
    (mixture,) = fit_mixtures(random_numbers(0, 1).random((500, 1)), 5, seed=0, iterations=3, backend=backend)
    assert not mixture.converged
    assert not recwarn


# Properties: of any points, from any start.


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array]:
    numbers = random_numbers(draw(st.integers(0, 2**32)))
    count, size, components = draw(st.integers(2, 60)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    codes = numbers.standard_normal((count, size)) @ numbers.standard_normal((size, size))
    codes[: draw(st.integers(0, count))] = codes[0]  # duplicates
    return codes + draw(st.floats(-100, 100)), numbers.dirichlet(np.full(components, 0.5), count)


def fitted(codes: Array, start: Array, **changed: Any) -> Mixture:
    return variational(codes, start, Prior.of(codes, start.shape[1]), iterations=15, tolerance=-1, **changed)


@settings(max_examples=40)
@given(problems())
def test_the_bound_never_falls_and_weights_sum_to_one(problem: tuple[Array, Array]) -> None:
    codes, start = problem
    kinds = np.arange(len(codes)) % 3
    mixture = fitted(codes, start, kinds=kinds)
    assert (np.diff(mixture.bounds) >= -1e-9 * np.abs(mixture.bounds[1:]) - 1e-9).all()
    assert_allclose(mixture.weights.sum(), 1)
    assert_allclose(mixture.members.sum(0), np.bincount(kinds))
    assert (np.linalg.eigvalsh(mixture.covariances) > 0).all()


@settings(max_examples=25)
@given(problems(), st.integers(0, 2**32))
def test_the_order_of_the_codes_does_not_matter(problem: tuple[Array, Array], seed: int) -> None:
    codes, start = problem
    order = random_numbers(seed).permutation(len(codes))
    one, other = fitted(codes, start), fitted(codes[order], start[order])
    assert_allclose(one.weights, other.weights, rtol=1e-6)
    assert_allclose(one.means, other.means, rtol=1e-6, atol=1e-6)
    assert_allclose(one.bounds, other.bounds, rtol=1e-6, atol=1e-6)


@settings(max_examples=25)
@given(problems(), st.integers(0, 2**32), st.floats(0.1, 10))
def test_codes_moved_turned_and_scaled_give_the_mixture_moved_turned_and_scaled(
    problem: tuple[Array, Array], seed: int, scale: float
) -> None:
    codes, start = problem
    size = codes.shape[1]
    spread = np.trace(np.cov(codes.T).reshape(size, size))
    assume(spread > 1e-2)  # the width of equal codes is a constant
    numbers = random_numbers(seed)
    turn, shift = scale * np.linalg.qr(numbers.standard_normal((size, size)))[0], 10 * numbers.standard_normal(size)
    one, other = fitted(codes, start), fitted(codes @ turn.T + shift, start)
    assert_allclose(other.weights, one.weights, rtol=1e-5)
    assert_allclose(other.means, one.means @ turn.T + shift, rtol=1e-5, atol=1e-5 * scale)
    assert_allclose(other.covariances, turn @ one.covariances @ turn.T, rtol=1e-4, atol=1e-5 * scale**2 * spread)


# Bad input.


@pytest.mark.parametrize("backend", ["torch", "scikit-learn"])
@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((0, 3)), r"given no codes: an array of shape \(0, 3\)"),
        (np.zeros((3, 0)), r"given no codes: an array of shape \(3, 0\)"),
        (np.zeros(3), r"given no codes: an array of shape \(3,\)"),
        (np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, np.nan]]), "given 2 of 3 codes that .* the first at row 1:"),
    ],
)
def test_codes_that_cannot_be_clustered_are_refused(codes: Array, message: str, backend: Any) -> None:
    with pytest.raises(DefuseError, match=message):
        fit_mixtures(codes, 3, seed=0, backend=backend)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(DefuseError, match="asked for 0 components"):
        fit_mixtures(normal(9, 2), 0, seed=0)
    with pytest.raises(DefuseError, match="a kind of 0 or more for each of 9 codes"):
        fit_mixtures(normal(9, 2), 2, seed=0, kinds=np.zeros(8, dtype=np.int64))


def test_covariances_that_are_none_are_one_sentence() -> None:
    codes = normal(30, 2)
    prior = replace(Prior.of(codes, 2), covariance=-np.eye(2) * 100)
    with pytest.raises(DefuseError, match="covariance is not positive definite"):
        variational(codes, soft_start(30, 2), prior)
