from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pytest_defuse.rules import honest_split
from pytest_defuse.rules.honest_split import Rows, honest_rules, rows_of
from pytest_defuse.rules.rates import Cluster
from pytest_defuse.rules.settings import RuleSettings
from pytest_defuse.rules.trees import Node, fit_tree, matches


def one_group(images: int) -> list[tuple[str, Rows]]:
    return [("all", np.arange(images))]


def random_groups(images: int, seed: int) -> list[tuple[str, Rows]]:
    """Six groups; each image is in two of them."""
    labels = np.random.default_rng(seed).integers(3, size=(2, images))
    return [(f"group {kind}{label}", np.flatnonzero(labels[kind] == label)) for kind in (0, 1) for label in range(3)]


def planted(seed: int, images: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """24 features; failure is likely where number 17 is large."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((images, 24)).astype(np.float32)
    return features, random.random(images) < np.where(features[:, 17] > 0.8, 0.6, 0.1)


def test_both_halves_have_the_same_share_of_failures_of_each_label() -> None:
    """With a plain random half, a group of 20 failures is often skipped because one half has fewer than 10."""
    features, _ = planted(0, images=400)
    labels = np.arange(400) % 10
    failed = np.arange(400) < 200
    groups = [(str(label), np.flatnonzero(labels == label)) for label in range(10)]
    for seed in range(5):
        found = honest_rules(features, failed, groups, RuleSettings(min_failures=10), seed=seed, labels=labels)
        assert not found.skipped
        assert found.measures.sum() == 200
        counts = np.bincount(labels[found.measures & failed])
        assert counts.tolist() == [10] * 10


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_feature_is_found_first(seed: int) -> None:
    features, failed = planted(seed, images=3000)
    rules = honest_rules(features, failed, one_group(3000), RuleSettings(), seed=seed).rules
    (condition,) = rules[0].path
    assert (condition.feature, condition.above) == (17, True)
    assert condition.threshold == pytest.approx(0.8, abs=0.3)
    assert rules[0].cluster.error_rate == pytest.approx(0.6, abs=0.1)
    assert rules[0].cluster.base_error_rate == pytest.approx(0.2, abs=0.05)
    assert list(rules) == sorted(rules, key=lambda rule: -rule.cluster.importance)


def test_random_failures_have_no_rule() -> None:
    """Not even without the thresholds delta and tau, which many chance results would pass."""
    quiet = 0
    for seed in range(20):
        features, failed = planted(seed, images=900)
        failed = np.random.default_rng(seed).permutation(failed)
        bare = RuleSettings(delta=0, tau=0, depth=2)
        quiet += not honest_rules(features, failed, random_groups(900, seed), bare, seed=seed).rules
    assert quiet >= 19


def test_the_paper_reports_chance() -> None:
    """Why the default is honest: rates measured on the images that grew the trees find rules in noise."""
    features, failed = planted(0, images=300)
    failed = np.random.default_rng(0).permutation(failed)
    found = honest_rules(features, failed, random_groups(300, 0), RuleSettings(selection="paper", depth=3))
    assert found.rules
    assert found.rules[0].q_value is None
    assert found.measures.all()


def test_delta_and_tau_are_exclusive_limits() -> None:
    features, failed = planted(0)
    groups = random_groups(1500, 0)
    rules = honest_rules(features, failed, groups, RuleSettings(delta=0, tau=0)).rules
    increase = max(rule.cluster.increase for rule in rules)
    coverage = max(rule.cluster.error_coverage for rule in rules)
    assert not honest_rules(features, failed, groups, RuleSettings(delta=increase, tau=0)).rules
    assert not honest_rules(features, failed, groups, RuleSettings(delta=0, tau=coverage)).rules


@pytest.mark.parametrize("failures", [19, 50])
def test_groups_with_few_failures_in_a_half_are_skipped_by_name(failures: int) -> None:
    failed = np.arange(400) < failures
    found = honest_rules(failed[:, None].astype(np.float32), failed, one_group(400), RuleSettings())
    assert (found.skipped, list(found.trees)) == ((("all",), []) if failures == 19 else ((), ["all"]))


def test_rates_are_measured_on_the_half_that_did_not_grow_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    features, failed = planted(2, images=1000)
    growing: list[np.ndarray] = []

    def spy(half: np.ndarray, *arguments: object, **named: object) -> Node:
        growing.append(np.isin(features[:, 0], half[:, 0]))
        return fit_tree(half, *arguments, **named)

    monkeypatch.setattr(honest_split, "fit_tree", spy)
    found = honest_rules(features, failed, one_group(1000), RuleSettings())
    (rule,) = found.rules
    assert (found.measures == ~growing[0]).all()
    assert found.measures.sum() == 500
    matching = found.measures & matches(rule.path, features)
    assert rule.cluster == Cluster(
        int(failed[matching].sum()), int(matching.sum()), int(failed[found.measures].sum()), int(found.measures.sum())
    )
    assert rule.cluster == next(leaf.cluster for leaf in found.trees["all"].leaves() if leaf.path == rule.path)


def test_the_seed_decides_the_halves() -> None:
    features, failed = planted(0)
    first, again, other = (
        honest_rules(features, failed, one_group(1500), RuleSettings(), seed=seed).rules for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_features_on_disk_give_the_same_rules(tmp_path: Path) -> None:
    features, failed = planted(0)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    first, second = (
        honest_rules(source, failed, one_group(1500), RuleSettings()).rules for source in (mapped, features)
    )
    assert first == second


def test_only_the_rows_of_one_group_at_a_time_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, failed = planted(0, images=2000)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    read: list[int] = []

    def spy(source: np.ndarray, rows: np.ndarray) -> np.ndarray:
        taken = rows_of(source, rows)
        assert type(taken) is np.ndarray
        read.append(len(taken))
        return taken

    def tenths() -> Iterator[tuple[str, Rows]]:
        for tenth in range(10):
            yield str(tenth), np.arange(tenth * 200, tenth * 200 + 200)

    monkeypatch.setattr(honest_split, "rows_of", spy)
    honest_rules(mapped, failed, tenths(), RuleSettings())
    assert len(read) > 10
    assert max(read) < 200
