"""Where failures lie among the training images, and the errors nearest to them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pytest_defuse.discover import latent_map as module
from pytest_defuse.discover.latent_map import latent_map
from pytest_defuse.discover.nearest_errors import nearest_errors


class Found:
    """As much of the failures as a map needs."""

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)


def made(training: Tensor, failing: Tensor, *means: list[float]) -> Any:
    """As much of a discovery as a map needs."""
    candidates = [SimpleNamespace(region=SimpleNamespace(mean=np.array(mean))) for mean in means]
    return SimpleNamespace(located=SimpleNamespace(means=training), found=Found(failing), candidates=candidates)


@pytest.fixture(scope="module")
def two_heaps() -> Any:
    """Training codes in two heaps of eight dimensions, failures in the second one."""
    numbers = torch.Generator().manual_seed(0)
    heaps = torch.randn(80, 8, generator=numbers) + 12 * (torch.arange(80) >= 40)[:, None]
    return made(heaps, heaps[60:70] + 0.1, [12.0] * 8)


@pytest.mark.parametrize("method", ["t-SNE", "PCA"])
def test_failures_lie_among_their_like(two_heaps: Any, method: str) -> None:
    drawn = latent_map(two_heaps, seed=0)
    points = next(points for name, points in drawn.projections.items() if name.startswith(method))
    assert points.shape == (80 + 10 + 1, 2)
    assert points.min() >= 0
    assert points.max() == pytest.approx(1)
    first, second = points[:40].mean(axis=0), points[40:80].mean(axis=0)
    beside = np.linalg.norm(points[80:] - second, axis=1)
    assert (beside < np.linalg.norm(points[80:] - first, axis=1)).all()


def test_the_same_seed_draws_the_same_map(two_heaps: Any) -> None:
    once, again = latent_map(two_heaps, seed=3), latent_map(two_heaps, seed=3)
    for name, points in once.projections.items():
        assert np.array_equal(points, again.projections[name])


def test_a_map_shows_a_sample(monkeypatch: pytest.MonkeyPatch, two_heaps: Any) -> None:
    monkeypatch.setattr(module, "TRAINING_POINTS", 20)
    monkeypatch.setattr(module, "FAILURE_POINTS", 3)
    drawn = latent_map(two_heaps, seed=0)
    assert drawn.images.tolist() == sorted(set(drawn.images.tolist()))
    assert (len(drawn.images), len(drawn.failures)) == (20, 3)
    assert all(len(points) == 24 for points in drawn.projections.values())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_codes_or_equal_ones_are_no_error(count: int) -> None:
    drawn = latent_map(made(torch.ones(count, 3), torch.ones(0, 3)), seed=0)
    assert all(np.isfinite(points).all() for points in drawn.projections.values())


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 40))
def test_the_nearest_error_is_the_nearest(seed: int, queries: int, count: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (queries, 1, 3, 4), generator=numbers, dtype=torch.uint8)
    errors = torch.randint(0, 256, (count, 1, 3, 4), generator=numbers, dtype=torch.uint8)
    nearest = nearest_errors(pictures, errors)
    assert nearest is not None
    for picture, position, distance in zip(pictures, nearest.positions, nearest.distances, strict=True):
        apart = ((errors.double() - picture) / 255).square().mean(dim=(1, 2, 3)).sqrt()
        assert apart[position] == pytest.approx(apart.min().item(), abs=1e-6)
        assert distance == pytest.approx(apart[position].item(), abs=1e-3)


def test_without_errors_none_is_near() -> None:
    assert (
        nearest_errors(torch.zeros(2, 1, 3, 4, dtype=torch.uint8), torch.zeros(0, 1, 3, 4, dtype=torch.uint8)) is None
    )
