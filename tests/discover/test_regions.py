from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from pytest_defuse.discover.failed_draws import FailedDraws
from pytest_defuse.discover.regions import Region, distill, merge_overlapping
from pytest_defuse.discover.settings import DiscoverySettings

SETTINGS = DiscoverySettings(min_failures=20, components=3)


def region(mean: object = (0.0, 0.0), weight: float = 0.5, label: int = 0, prediction: int = 1) -> Region:
    return Region(np.array(mean, dtype=float), np.eye(2), 0.5, label, prediction, weight)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    numbers = np.random.default_rng([draw(st.integers(0, 2**32))])
    root = numbers.standard_normal((3, 3)) * draw(st.floats(0.1, 5))
    covariance = root @ root.T + 1e-3 * np.eye(3)
    return Region(numbers.standard_normal(3), covariance, draw(st.floats(0.01, 1)), 0, 1, draw(st.floats(0.01, 1)))


def group(mean: tuple[float, float], count: int, label: int = 0, prediction: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    numbers = np.random.default_rng([0, count, label, prediction]).standard_normal((count, 2))
    return (
        torch.from_numpy(numbers * 0.3 + mean).float(),
        torch.tensor([label] * count),
        torch.tensor([prediction] * count),
    )


def failures(*groups: tuple[Tensor, Tensor, Tensor]) -> FailedDraws:
    codes, labels, predictions = zip(*groups, strict=True)
    return FailedDraws(
        torch.cat(codes),
        torch.cat(labels),
        torch.cat(predictions),
        torch.arange(sum(map(len, codes))),
        torch.zeros(sum(map(len, codes)), dtype=torch.int64),
    )


def test_samples_have_the_region_s_mean_and_tau_times_its_covariance() -> None:
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    codes = Region(np.array([1.0, -2.0]), covariance, 0.25, 0, 1, 1.0).sample_codes(50_000, 0, 2, 7)
    assert codes.shape == (50_000, 2)
    assert codes.dtype == torch.float32
    assert_allclose(codes.mean(dim=0), [1, -2], atol=0.01)
    assert_allclose(np.cov(codes.T), 0.25 * covariance, atol=0.01)


def test_samples_depend_on_seed_stage_and_item() -> None:
    codes = region().sample_codes(10, 0, 2, 7)
    assert torch.equal(region().sample_codes(10, 0, 2, 7), codes)
    assert not torch.equal(region().sample_codes(10, 1, 2, 7), codes)
    assert not torch.equal(region().sample_codes(10, 0, 2, 8), codes)


@given(regions(), regions())
def test_overlap_is_symmetric_and_one_for_itself(a: Region, b: Region) -> None:
    assert 0 <= a.overlap(b) <= 1
    assert_allclose(a.overlap(b), b.overlap(a), rtol=1e-6, atol=1e-12)
    assert_allclose(a.overlap(a), 1)


def test_the_overlap_of_equal_covariances_is_known() -> None:
    # The Bhattacharyya coefficient for covariances I is exp(-d^2 / 8).
    assert_allclose(region().overlap(region((2.0, 0.0))), np.exp(-0.5))
    assert region().overlap(region((100.0, 0.0))) < 1e-12


@given(regions(), regions())
def test_a_merged_region_has_the_weighted_moments(a: Region, b: Region) -> None:
    merged = a.merge(b)
    assert_allclose(merged.weight, a.weight + b.weight)
    assert (merged.label, merged.prediction, merged.tau) == (0, 1, a.tau)

    def second_moment(r: Region) -> np.ndarray:
        return r.weight * (r.covariance + np.outer(r.mean, r.mean))

    assert_allclose(merged.weight * merged.mean, a.weight * a.mean + b.weight * b.mean, atol=1e-9)
    assert_allclose(second_moment(merged), second_moment(a) + second_moment(b), atol=1e-9)


def test_each_dense_group_of_one_error_is_a_region() -> None:
    settings = DiscoverySettings(min_failures=5, components=3, min_weight=0.1)
    found = distill(failures(group((0, 0), 100), group((9, 0), 60), group((0, 0), 40, label=2)), settings, seed=0)
    assert [(r.label, r.prediction) for r in found] == [(0, 1), (0, 1), (2, 1)]
    assert_allclose([r.mean for r in found], [(0, 0), (9, 0), (0, 0)], atol=0.3)
    assert_allclose([r.weight for r in found[:2]], [0.5, 0.3], atol=0.02)
    assert all(r.tau == settings.tau for r in found)


def test_two_errors_at_one_place_are_two_regions() -> None:
    draws = failures(group((0, 0), 30, prediction=1), group((0, 0), 90, prediction=2))
    found = distill(draws, DiscoverySettings(min_failures=20, components=2), seed=0)
    assert [(r.label, r.prediction) for r in found] == [(0, 2), (0, 1)]


def test_groups_of_few_failures_are_dropped() -> None:
    found = distill(failures(group((0, 0), 100), group((9, 0), 15), group((0, 0), 19, label=2)), SETTINGS, seed=0)
    assert_allclose([r.mean for r in found], [(0, 0)], atol=0.3)


def test_groups_of_small_weight_are_dropped() -> None:
    draws = failures(group((0, 0), 100), group((9, 0), 30))
    assert len(distill(draws, DiscoverySettings(min_failures=20, components=3, min_weight=0.1), seed=0)) == 2
    assert len(distill(draws, DiscoverySettings(min_failures=20, components=3, min_weight=0.3), seed=0)) == 1


def test_a_single_failure_is_no_region() -> None:
    draws = failures(group((0, 0), 30), group((0, 0), 1, label=2))
    found = distill(draws, DiscoverySettings(min_failures=1, components=1), seed=0)
    assert [r.label for r in found] == [0]


def test_without_failures_there_are_no_regions() -> None:
    draws = failures(group((0, 0), 30))
    assert distill(draws[draws.labels > 5], SETTINGS, seed=0) == []


def test_overlapping_regions_of_one_error_are_merged() -> None:
    distant = region((50.0, 0.0), 0.1)
    merged, other = merge_overlapping([distant, region(weight=0.3), region((1.0, 0.0), 0.6)], max_overlap=0.3)
    assert_allclose(merged.weight, 0.9)
    assert_allclose(merged.mean, [2 / 3, 0])
    assert other is distant


@pytest.mark.parametrize("error", [{"label": 2}, {"prediction": 2}])
def test_overlapping_regions_of_different_errors_are_not_merged(error: dict[str, int]) -> None:
    kept = merge_overlapping([region(weight=0.3, **error), region(weight=0.6)], max_overlap=0.3)
    assert [r.weight for r in kept] == [0.6, 0.3]


def test_plain_clustering_ignores_kinds_and_takes_the_most_common_one() -> None:
    draws = failures(group((0, 0), 70), group((0, 0), 30, prediction=2), group((9, 0), 50, prediction=2))
    plain = DiscoverySettings(min_failures=20, components=3, clustering="plain")
    found = distill(draws, plain, seed=0)
    assert [(r.label, r.prediction) for r in found] == [(0, 1), (0, 2)]
    assert_allclose([r.weight for r in found], [100 / 150, 50 / 150], atol=0.01)
    joint = distill(draws, plain.replace(clustering="joint"), seed=0)
    assert_allclose([r.weight for r in joint], [70 / 150, 50 / 150, 30 / 150], atol=0.01)


def test_one_cloud_is_one_region() -> None:
    found = distill(failures(group((0, 0), 70), group((9, 0), 50, prediction=2)), SETTINGS, seed=0)
    assert_allclose([r.mean for r in found], [(0, 0), (9, 0)], atol=0.1)


def structured(count: int) -> FailedDraws:
    """Four dense groups of one error, and two of another."""
    means = [(0.0, 0.0), (6.0, 0.0), (0.0, 6.0), (6.0, 6.0)]
    return failures(*(group(mean, count) for mean in means), *(group(mean, count, label=2) for mean in means[:2]))


def test_regions_that_every_restart_finds_are_kept() -> None:
    found = distill(structured(60), DiscoverySettings(components=20), seed=0)
    assert len(found) == 6
    assert all(r.recurrence == 1 for r in found)
    assert_allclose(sum(r.weight for r in found), 1, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("clustering", ["joint", "plain"])
def test_normal_codes_are_at_most_one_region_per_kind(clustering: str) -> None:
    # Fresh draws decide whether that region fails. Uniform codes can have more regions: every restart may find the same
    # Gaussians that tile a box, and only confirmation on fresh draws rejects them.
    draws = failures(group((0, 0), 500), group((0, 0), 300, prediction=2))
    draws = replace(draws, codes=torch.from_numpy(np.random.default_rng([3]).standard_normal((800, 6))).float())
    found = distill(draws, DiscoverySettings(components=20, clustering=clustering), seed=0)
    assert len({(r.label, r.prediction) for r in found}) == len(found) <= 2


def test_recurrence_is_the_share_of_restarts_that_find_the_region() -> None:
    one, distant = region(), region((100.0, 0.0))
    assert one.with_recurrence([[one], [distant]], 0.5).recurrence == 0.5
    assert one.with_recurrence([[distant], [replace(one, label=7)]], 0.5).recurrence == 0
    assert one.with_recurrence([], 0.5).recurrence == 1
