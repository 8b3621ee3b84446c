import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.tree import DecisionTreeClassifier

from pytest_defuse.rules import gain
from pytest_defuse.rules.gain import split_gains


def tree_gain(feature: np.ndarray, failed: np.ndarray, min_leaf: int) -> float:
    """The gain of scikit-learn's tree of depth 1 on one feature."""
    tree = DecisionTreeClassifier(
        max_depth=1, criterion="entropy", class_weight="balanced", min_samples_leaf=min_leaf, random_state=0
    )
    nodes = tree.fit(feature[:, None], failed).tree_
    if nodes.node_count == 1:
        return 0.0
    share = nodes.weighted_n_node_samples / nodes.weighted_n_node_samples[0]
    return float(nodes.impurity[0] - share[1:] @ nodes.impurity[1:])


@pytest.mark.parametrize("min_leaf", [1, 10])
@pytest.mark.parametrize("levels", [None, 4], ids=["distinct", "tied"])
def test_gains_are_those_of_a_decision_tree(levels: int | None, min_leaf: int) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((150, 90)).astype(np.float32)
    if levels:
        features = np.round(features * levels) / np.float32(levels)
    failed = random.random(150) < 1 / (1 + np.exp(1 - features[:, 5]))
    expected = [tree_gain(column, failed, min_leaf) for column in features.T]
    assert split_gains(features, failed, min_leaf) == pytest.approx(expected, abs=1e-9)


# scikit-learn takes values nearer than 1e-7 for equal, so these are no nearer.
values = st.sampled_from([-(2.0**20), -1.5, -(2.0**-10), -0.0, 0.0, 2.0**-10, 0.5, 3.0, 2.0**20])


@given(arrays(np.float32, (12, 2), elements=values), arrays(bool, 12))
def test_ties_signs_and_zeros_change_nothing(features: np.ndarray, failed: np.ndarray) -> None:
    expected = [tree_gain(column, failed, 1) if failed.any() and not failed.all() else 0 for column in features.T]
    assert split_gains(features, failed) == pytest.approx(expected, abs=1e-9)


def test_a_clean_split_gains_one_bit_between_neighbouring_floats_too() -> None:
    one = np.float32(1)
    features = np.array([[one, np.nextafter(one, np.float32(2))]]).T
    assert split_gains(features, np.array([False, True])) == pytest.approx([1])


@pytest.mark.parametrize(
    ("features", "failed"),
    [
        (np.ones((4, 2), np.float32), np.array([True, False, True, False])),
        (np.eye(4, dtype=np.float32), np.zeros(4, bool)),
        (np.eye(4, dtype=np.float32), np.ones(4, bool)),
        (np.eye(4, dtype=np.float32)[:1], np.ones(1, bool)),
    ],
    ids=["constant", "no failure", "failures only", "one image"],
)
def test_nothing_to_gain_is_zero(features: np.ndarray, failed: np.ndarray) -> None:
    assert split_gains(features, failed).tolist() == [0] * features.shape[1]


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    features, failed = random.standard_normal((80, 7)).astype(np.float32), random.random(80) < 0.3
    whole = split_gains(features, failed)
    monkeypatch.setattr(gain, "FEATURES_PER_BLOCK", 3)
    assert split_gains(features, failed).tolist() == whole.tolist()
