from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pytest_defuse.explain import failure_modes as explain
from pytest_defuse.explain.failure_modes import (
    FailureMode,
    Group,
    class_groups,
    find_failure_modes,
    mask_group,
    rows_of,
)
from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.rules.rates import Cluster
from pytest_defuse.rules.trees import Condition, Node, grown
from pytest_defuse.runtime.errors import DefuseError

CLASSES = ["cat", "dog", "eel"]


def everything(images: int) -> list[Group]:
    return [Group("label", "cat", np.arange(images))]


def groups_of(failed: np.ndarray, seed: int) -> list[Group]:
    """Groups of images with random labels, on which a failure predicts the next class."""
    labels = np.random.default_rng(seed).integers(len(CLASSES), size=len(failed))
    return list(class_groups(CLASSES, labels, (labels + failed) % len(CLASSES)))


def planted(seed: int, images: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """24 features, of which number 17 makes failure likely when it is large."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((images, 24)).astype(np.float32)
    return features, random.random(images) < np.where(features[:, 17] > 0.8, 0.6, 0.1)


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_feature_is_found_first(seed: int) -> None:
    features, failed = planted(seed, images=3000)
    modes = find_failure_modes(features, failed, everything(3000), seed=seed)
    (condition,) = modes[0].path
    assert (condition.feature, condition.above) == (17, True)
    assert condition.threshold == pytest.approx(0.8, abs=0.3)
    assert modes[0].error_rate == pytest.approx(0.6, abs=0.1)
    assert modes[0].base_error_rate == pytest.approx(0.2, abs=0.05)
    assert list(modes) == sorted(modes, key=lambda mode: -mode.importance)


def test_failures_that_come_at_random_have_no_mode() -> None:
    """Not even without the margins delta and tau, which alone let much of chance through."""
    quiet = 0
    for seed in range(20):
        features, failed = planted(seed, images=900)
        failed = np.random.default_rng(seed).permutation(failed)
        bare = ExplainSettings(delta=0, tau=0, depth=2)
        quiet += not find_failure_modes(features, failed, groups_of(failed, seed), bare, seed=seed)
    assert quiet >= 19


def test_the_paper_reports_chance() -> None:
    """What the honest default is for: scored on the images that were fitted, noise alone has failure modes."""
    features, failed = planted(0, images=300)
    failed = np.random.default_rng(0).permutation(failed)
    modes = find_failure_modes(features, failed, groups_of(failed, 0), ExplainSettings(selection="paper", depth=3))
    assert modes
    assert modes[0].q_value is None


def test_delta_and_tau_are_margins() -> None:
    features, failed = planted(0)
    groups = groups_of(failed, 0)
    modes = find_failure_modes(features, failed, groups, ExplainSettings(delta=0, tau=0))
    gap = max(mode.cluster.increase for mode in modes)
    coverage = max(mode.error_coverage for mode in modes)
    assert not find_failure_modes(features, failed, groups, ExplainSettings(delta=gap, tau=0))
    assert not find_failure_modes(features, failed, groups, ExplainSettings(delta=0, tau=coverage))


def test_groups_with_few_failures_are_named_not_tried() -> None:
    failed = np.arange(400) < 19
    found = find_failure_modes(failed[:, None].astype(np.float32), failed, everything(400))
    assert not found
    assert found.passed_over == ("label cat",)
    assert "1 with too few failures" in repr(found)


def test_rates_are_measured_on_the_half_that_did_not_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    features, failed = planted(2, images=1000)
    chose: list[np.ndarray] = []

    def spy(half: np.ndarray, *arguments: object, **named: object) -> Node:
        chose.append(np.isin(features[:, 0], half[:, 0]))
        return grown(half, *arguments, **named)

    monkeypatch.setattr(explain, "grown", spy)
    modes = find_failure_modes(features, failed, everything(1000))
    (found,) = modes
    assert (modes.measures == ~chose[0]).all()
    assert modes.measures.sum() == 500
    picked = modes.measures & (features[:, 17] > found.path[0].threshold)
    assert modes.rows("label cat", found.path, features).tolist() == np.flatnonzero(picked).tolist()
    assert found.cluster == Cluster(
        int(failed[picked].sum()), int(picked.sum()), int(failed[modes.measures].sum()), int(modes.measures.sum())
    )


def test_same_seed_same_modes() -> None:
    features, failed = planted(0)
    first, again, other = (
        list(find_failure_modes(features, failed, everything(1500), seed=seed)) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_groups_carry_class_names() -> None:
    groups = {
        str(group): group.rows.tolist() for group in class_groups(CLASSES, np.array([0, 1, 2]), np.array([0, 0, 2]))
    }
    assert list(groups) == [f"{kind} {name}" for kind in ("label", "prediction") for name in CLASSES]
    assert groups["label dog"] == [1]
    assert groups["prediction cat"] == [0, 1]
    assert groups["prediction dog"] == []


def test_a_mask_of_the_user_is_a_group() -> None:
    features, failed = planted(0)
    night = mask_group("at night", (np.arange(1500) % 3 > 0).tolist(), 1500)
    (mode,) = find_failure_modes(features, failed, [night])
    assert mode.group == "images at night"
    assert mode.cluster.group_images == pytest.approx(500, abs=60)


@pytest.mark.parametrize("mask", [[True], [0, 1], np.ones((2, 2), bool)], ids=["short", "numbers", "square"])
def test_a_mask_that_does_not_fit_is_refused(mask: list[bool]) -> None:
    with pytest.raises(DefuseError, match=r"'at night' is .* give one bool for each of the 2 test images"):
        mask_group("at night", mask, 2)


def test_modes_above_a_multiple_of_the_base_rate() -> None:
    features, failed = planted(0)
    modes = find_failure_modes(features, failed, everything(1500))
    ratio = modes[0].error_rate / modes[0].base_error_rate
    assert modes.above(ratio - 0.01) == [modes[0]]
    assert modes.above(ratio + 0.01) == []
    assert modes.above(1, coverage=modes[0].error_coverage + 0.01) == []


def test_a_mode_says_what_it_found() -> None:
    mode = FailureMode("label purse", (Condition(1456, 0.3641, above=False, name="buckle"),), Cluster(60, 100, 90, 300))
    assert str(mode) == (
        "label purse: where feature 1456 'buckle' <= 0.3641, error rate 60.0% (95% interval 50.2% to 69.1%, "
        "+30.0 points) on 100 images, 67% of the failures"
    )


def test_features_on_disk_give_the_same_modes(tmp_path: Path) -> None:
    features, failed = planted(0)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert list(find_failure_modes(mapped, failed, everything(1500))) == list(
        find_failure_modes(features, failed, everything(1500))
    )


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

    def tenths() -> Iterator[Group]:
        for tenth in range(10):
            yield Group("images", str(tenth), np.arange(tenth * 200, tenth * 200 + 200))

    monkeypatch.setattr(explain, "rows_of", spy)
    find_failure_modes(mapped, failed, tenths())
    assert len(read) > 10
    assert max(read) < 200
