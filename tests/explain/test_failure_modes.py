import numpy as np
import pytest

from pytest_defuse.explain.failure_modes import FailureMode, Group, class_groups, find_failure_modes, mask_group
from pytest_defuse.rules.rates import Cluster
from pytest_defuse.rules.trees import Condition, matches
from pytest_defuse.runtime.errors import DefuseError
from tests.rules.test_honest_split import planted

CLASSES = ["cat", "dog", "eel"]


def all_cats(images: int) -> list[Group]:
    return [Group("label", "cat", np.arange(images))]


def test_groups_are_named_by_class() -> None:
    groups = {
        str(group): group.rows.tolist() for group in class_groups(CLASSES, np.array([0, 1, 2]), np.array([0, 0, 2]))
    }
    assert list(groups) == [f"{kind} {name}" for kind in ("label", "prediction") for name in CLASSES]
    assert groups["label dog"] == [1]
    assert groups["prediction cat"] == [0, 1]
    assert groups["prediction dog"] == []


def test_a_users_mask_is_a_group() -> None:
    features, failed = planted(0)
    night = mask_group("at night", (np.arange(1500) % 3 > 0).tolist(), 1500)
    (mode,) = find_failure_modes(features, failed, [night])
    assert mode.group == "images at night"
    assert mode.cluster.group_images == pytest.approx(500, abs=60)


@pytest.mark.parametrize("mask", [[True], [0, 1], np.ones((2, 2), bool)], ids=["short", "numbers", "square"])
def test_a_mask_that_does_not_fit_is_refused(mask: list[bool]) -> None:
    with pytest.raises(DefuseError, match=r"'at night' is .* give one bool for each of the 2 test images"):
        mask_group("at night", mask, 2)


def test_the_images_of_a_mode_are_those_that_measured_it() -> None:
    features, failed = planted(2, images=1000)
    modes = find_failure_modes(features, failed, all_cats(1000))
    matching = np.flatnonzero(modes.measures & matches(modes[0].path, features))
    assert modes.rows("label cat", modes[0].path, features).tolist() == matching.tolist()
    assert len(matching) == modes[0].cluster.images


def test_groups_with_few_failures_are_counted() -> None:
    failed = np.arange(400) < 19
    found = find_failure_modes(failed[:, None].astype(np.float32), failed, all_cats(400))
    assert not found
    assert found.skipped == ("label cat",)
    assert "1 with too few failures" in repr(found)


def test_modes_above_a_multiple_of_the_base_rate() -> None:
    features, failed = planted(0)
    modes = find_failure_modes(features, failed, all_cats(1500))
    ratio = modes[0].error_rate / modes[0].base_error_rate
    assert modes.above(ratio - 0.01) == [modes[0]]
    assert modes.above(ratio + 0.01) == []
    assert modes.above(1, coverage=modes[0].error_coverage + 0.01) == []


def test_a_mode_is_printed_as_a_sentence() -> None:
    mode = FailureMode("label purse", (Condition(1456, 0.3641, above=False, name="buckle"),), Cluster(60, 100, 90, 300))
    assert str(mode) == (
        "label purse: where feature 1456 'buckle' <= 0.3641, error rate 60.0% (95% interval 50.2% to 69.1%, "
        "+30.0 points) on 100 images, 67% of the failures"
    )
