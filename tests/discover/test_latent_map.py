from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pytest_defuse.discover import latent_map as module
from pytest_defuse.discover.latent_map import latent_map


class Failures:
    """The part of the failed draws that a map reads."""

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)


def discovery(training: Tensor, failures: Tensor, *means: list[float]) -> Any:
    """The part of a discovery that a map reads."""
    candidates = [SimpleNamespace(region=SimpleNamespace(mean=np.array(mean))) for mean in means]
    return SimpleNamespace(
        latent_images=SimpleNamespace(means=training), failed_draws=Failures(failures), candidates=candidates
    )


@pytest.fixture(scope="module")
def two_clusters() -> Any:
    """Training codes in two clusters of eight dimensions, failures in the second one."""
    numbers = torch.Generator().manual_seed(0)
    codes = torch.randn(80, 8, generator=numbers) + 12 * (torch.arange(80) >= 40)[:, None]
    return discovery(codes, codes[60:70] + 0.1, [12.0] * 8)


@pytest.mark.parametrize("method", ["t-SNE", "PCA"])
def test_failures_are_near_the_training_images_of_their_cluster(two_clusters: Any, method: str) -> None:
    _, _, projections = latent_map(two_clusters, seed=0)
    points = next(points for name, points in projections.items() if name.startswith(method))
    assert points.shape == (80 + 10 + 1, 2)
    assert points.min() >= 0
    assert points.max() == pytest.approx(1)
    first, second = points[:40].mean(axis=0), points[40:80].mean(axis=0)
    distances = np.linalg.norm(points[80:] - second, axis=1)
    assert (distances < np.linalg.norm(points[80:] - first, axis=1)).all()


def test_the_same_seed_gives_the_same_map(two_clusters: Any) -> None:
    (_, _, first), (_, _, second) = latent_map(two_clusters, seed=3), latent_map(two_clusters, seed=3)
    for name, points in first.items():
        assert np.array_equal(points, second[name])


def test_a_map_shows_a_sample(monkeypatch: pytest.MonkeyPatch, two_clusters: Any) -> None:
    monkeypatch.setattr(module, "TRAINING_POINTS", 20)
    monkeypatch.setattr(module, "FAILURE_POINTS", 3)
    images, failures, projections = latent_map(two_clusters, seed=0)
    assert images.tolist() == sorted(set(images.tolist()))
    assert (len(images), len(failures)) == (20, 3)
    assert all(len(points) == 24 for points in projections.values())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_or_equal_codes_are_no_error(count: int) -> None:
    _, _, projections = latent_map(discovery(torch.ones(count, 3), torch.ones(0, 3)), seed=0)
    assert all(np.isfinite(points).all() for points in projections.values())
