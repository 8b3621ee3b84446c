from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from pytest_defuse.discover.failed_draws import Failures
from pytest_defuse.discover.regions import Region, distill, merge_overlapping
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.determinism import random_numbers

SETTINGS = DiscoverySettings(min_failures=20, components=3)


def region(mean: object = (0.0, 0.0), weight: float = 0.5, label: int = 0, prediction: int = 1) -> Region:
    return Region(np.array(mean, dtype=float), np.eye(2), 0.5, label, prediction, weight)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    numbers = random_numbers(draw(st.integers(0, 2**32)))
    root = numbers.standard_normal((3, 3)) * draw(st.floats(0.1, 5))
    covariance = root @ root.T + 1e-3 * np.eye(3)
    return Region(numbers.standard_normal(3), covariance, draw(st.floats(0.01, 1)), 0, 1, draw(st.floats(0.01, 1)))


def group(mean: tuple[float, float], count: int, label: int = 0, prediction: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    numbers = random_numbers(0, count, label, prediction).standard_normal((count, 2))
    return (
        torch.from_numpy(numbers * 0.3 + mean).float(),
        torch.tensor([label] * count),
        torch.tensor([prediction] * count),
    )


def failures(*groups: tuple[Tensor, Tensor, Tensor]) -> Failures:
    codes, labels, predictions = zip(*groups, strict=True)
    return Failures(
        torch.cat(codes),
        torch.cat(labels),
        torch.cat(predictions),
        torch.arange(sum(map(len, codes))),
        torch.zeros(sum(map(len, codes)), dtype=torch.int64),
    )


def test_codes_have_the_regions_mean_and_tau_times_its_covariance() -> None:
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    codes = Region(np.array([1.0, -2.0]), covariance, 0.25, 0, 1, 1.0).codes(50_000, 0, 2, 7)
    assert codes.shape == (50_000, 2)
    assert codes.dtype == torch.float32
    assert_allclose(codes.mean(dim=0), [1, -2], atol=0.01)
    assert_allclose(np.cov(codes.T), 0.25 * covariance, atol=0.01)


def test_codes_belong_to_seed_and_stream() -> None:
    codes = region().codes(10, 0, 2, 7)
    assert torch.equal(region().codes(10, 0, 2, 7), codes)
    assert not torch.equal(region().codes(10, 1, 2, 7), codes)
    assert not torch.equal(region().codes(10, 0, 2, 8), codes)


@given(regions(), regions())
def test_overlap_is_symmetric_and_one_for_itself(a: Region, b: Region) -> None:
    assert 0 <= a.overlap(b) <= 1
    assert_allclose(a.overlap(b), b.overlap(a), rtol=1e-6, atol=1e-12)
    assert_allclose(a.overlap(a), 1)


def test_overlap_falls_with_distance_to_its_known_value() -> None:
    # Bhattacharyya, equal covariances I: exp(-d^2 / 8).
    assert_allclose(region().overlap(region((2.0, 0.0))), np.exp(-0.5))
    assert region().overlap(region((100.0, 0.0))) < 1e-12


@given(regions(), regions())
def test_a_merged_region_has_the_weighted_moments(a: Region, b: Region) -> None:
    merged = a.merged(b)
    assert_allclose(merged.weight, a.weight + b.weight)
    assert (merged.label, merged.prediction, merged.tau) == (0, 1, a.tau)

    def second_moment(r: Region) -> np.ndarray:
        return r.weight * (r.covariance + np.outer(r.mean, r.mean))

    assert_allclose(merged.weight * merged.mean, a.weight * a.mean + b.weight * b.mean, atol=1e-9)
    assert_allclose(second_moment(merged), second_moment(a) + second_moment(b), atol=1e-9)


def test_each_dense_place_of_an_error_is_a_region() -> None:
    settings = DiscoverySettings(min_failures=5, components=3, min_weight=0.1)
    found = distill(failures(group((0, 0), 100), group((9, 0), 60), group((0, 0), 40, label=2)), settings, seed=0)
    assert [(r.label, r.prediction) for r in found] == [(0, 1), (0, 1), (2, 1)]
    assert_allclose([r.mean for r in found], [(0, 0), (9, 0), (0, 0)], atol=0.3)
    assert_allclose([r.weight for r in found[:2]], [0.5, 0.3], atol=0.02)
    assert all(r.tau == settings.tau for r in found)


def test_one_place_where_two_errors_meet_is_two_regions() -> None:
    some = failures(group((0, 0), 30, prediction=1), group((0, 0), 90, prediction=2))
    found = distill(some, DiscoverySettings(min_failures=20, components=2), seed=0)
    assert [(r.label, r.prediction) for r in found] == [(0, 2), (0, 1)]


def test_places_of_few_failures_are_dropped() -> None:
    found = distill(failures(group((0, 0), 100), group((9, 0), 15), group((0, 0), 19, label=2)), SETTINGS, seed=0)
    assert_allclose([r.mean for r in found], [(0, 0)], atol=0.3)


def test_places_of_little_weight_are_dropped() -> None:
    some = failures(group((0, 0), 100), group((9, 0), 30))
    assert len(distill(some, DiscoverySettings(min_failures=20, components=3, min_weight=0.1), seed=0)) == 2
    assert len(distill(some, DiscoverySettings(min_failures=20, components=3, min_weight=0.3), seed=0)) == 1


def test_a_single_failure_is_no_region() -> None:
    some = failures(group((0, 0), 30), group((0, 0), 1, label=2))
    found = distill(some, DiscoverySettings(min_failures=1, components=1), seed=0)
    assert [r.label for r in found] == [0]


def test_without_failures_there_are_no_regions() -> None:
    some = failures(group((0, 0), 30))
    assert distill(some[some.labels > 5], SETTINGS, seed=0) == []


def test_overlapping_regions_of_one_error_are_merged() -> None:
    far = region((50.0, 0.0), 0.1)
    merged, other = merge_overlapping([far, region(weight=0.3), region((1.0, 0.0), 0.6)], max_overlap=0.3)
    assert_allclose(merged.weight, 0.9)
    assert_allclose(merged.mean, [2 / 3, 0])
    assert other is far


@pytest.mark.parametrize("error", [{"label": 2}, {"prediction": 2}])
def test_overlapping_regions_of_other_errors_stay_apart(error: dict[str, int]) -> None:
    kept = merge_overlapping([region(weight=0.3, **error), region(weight=0.6)], max_overlap=0.3)
    assert [r.weight for r in kept] == [0.6, 0.3]


def test_plain_clustering_sees_places_alone_and_names_them_by_the_most_of_their_members() -> None:
    some = failures(group((0, 0), 70), group((0, 0), 30, prediction=2), group((9, 0), 50, prediction=2))
    plain = DiscoverySettings(min_failures=20, components=3, clustering="plain")
    found = distill(some, plain, seed=0)
    assert [(r.label, r.prediction) for r in found] == [(0, 1), (0, 2)]
    assert_allclose([r.weight for r in found], [100 / 150, 50 / 150], atol=0.01)
    assert_allclose([r.purity for r in found], [0.7, 1], atol=0.01)
    joint = distill(some, plain.replace(clustering="joint"), seed=0)
    assert_allclose([r.purity for r in joint], [1, 1, 1])
    assert_allclose([r.weight for r in joint], [70 / 150, 50 / 150, 30 / 150], atol=0.01)


def test_one_cloud_is_one_region_and_not_two_halves() -> None:
    found = distill(failures(group((0, 0), 70), group((9, 0), 50, prediction=2)), SETTINGS, seed=0)
    assert_allclose([r.mean for r in found], [(0, 0), (9, 0)], atol=0.1)


@pytest.mark.parametrize("clustering", ["joint", "plain"])
def test_scikit_learn_finds_the_same_regions(clustering: str) -> None:
    some = failures(group((0, 0), 80), group((9, 0), 40, prediction=2))
    torchs = DiscoverySettings(min_failures=20, components=2, clustering=clustering, restarts=2)
    for one, other in zip(
        distill(some, torchs, 0), distill(some, torchs.replace(backend="scikit-learn"), 0), strict=True
    ):
        assert one.same_error(other)
        assert one.overlap(other) > 0.99


def structured(count: int) -> Failures:
    """Four dense places of one error, and two of another at the same distance."""
    places = [(0.0, 0.0), (6.0, 0.0), (0.0, 6.0), (6.0, 6.0)]
    return failures(*(group(p, count) for p in places), *(group(p, count, label=2) for p in places[:2]))


def test_regions_that_every_restart_finds_are_kept() -> None:
    found = distill(structured(60), DiscoverySettings(components=20), seed=0)
    assert len(found) == 6
    assert all(r.stability == 1 for r in found)
    assert_allclose(sum(r.weight for r in found), 1, atol=0.02)


@pytest.mark.parametrize("clustering", ["joint", "plain"])
def test_normal_codes_are_at_most_one_cloud_a_kind(clustering: str) -> None:
    # Whether that cloud fails, fresh draws decide. Of uniform codes no such thing holds: the Gaussians that tile
    # a box can be the same in every restart, and confirmation alone stands between them and a report.
    some = failures(group((0, 0), 500), group((0, 0), 300, prediction=2))
    some = replace(some, codes=torch.from_numpy(random_numbers(3).standard_normal((800, 6))).float())
    found = distill(some, DiscoverySettings(components=20, clustering=clustering), seed=0)
    assert len({(r.label, r.prediction) for r in found}) == len(found) <= 2


def test_what_only_one_restart_found_is_unstable() -> None:
    one, far = region(), region((100.0, 0.0))
    assert one.among([[one], [far]], 0.5).stability == 0.5
    assert one.among([[far], [replace(one, label=7)]], 0.5).stability == 0
    assert one.among([], 0.5).stability == 1
