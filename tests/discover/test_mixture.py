import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pytest_defuse.determinism import random_numbers
from pytest_defuse.discover.mixture import Array, fit_mixture

MEANS = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
COUNTS = (1200, 600, 200)


@pytest.fixture(scope="module")
def codes() -> Array:
    """Three groups far from each other, of standard deviations 1 and 0.3."""
    groups = [
        mean + random_numbers(0, number).standard_normal((count, 2)) * [1.0, 0.3]
        for number, (mean, count) in enumerate(zip(MEANS, COUNTS, strict=True))
    ]
    return np.concatenate(groups)


def test_groups_far_from_each_other_are_found(codes: Array) -> None:
    mixture = fit_mixture(codes, 6, seed=0)
    found = np.argsort(-mixture.weights)[:3]
    assert_allclose(mixture.weights[found], [0.6, 0.3, 0.1], atol=0.02)
    assert_allclose(mixture.means[found], MEANS, atol=0.3)
    assert_allclose(mixture.covariances[found], [np.diag([1.0, 0.09])] * 3, atol=0.35)
    assert_allclose(mixture.weights.sum(), 1)


def test_the_seed_alone_decides(codes: Array) -> None:
    first = fit_mixture(codes, 4, seed=2**40)
    np.random.seed(5)
    state = np.random.get_state()[1].tolist()
    second = fit_mixture(codes, 4, seed=2**40)
    assert np.random.get_state()[1].tolist() == state
    assert_array_equal(first.means, second.means)


@pytest.mark.parametrize("count", [2, 3])
def test_no_more_components_than_codes(count: int) -> None:
    mixture = fit_mixture(np.arange(2.0 * count).reshape(count, 2), 50, seed=0)
    assert mixture.means.shape == (count, 2)
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0


def test_equal_codes_still_have_a_covariance() -> None:
    mixture = fit_mixture(np.ones((40, 3)), 5, seed=0)
    assert_allclose(mixture.means[mixture.weights.argmax()], 1)
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0


def test_a_mixture_that_has_not_settled_is_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    fit_mixture(random_numbers(0, 1).random((1000, 1)), 5, seed=0)
    assert not recwarn
