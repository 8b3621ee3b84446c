import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_classif
from sklearn.tree import DecisionTreeClassifier

from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.rules.rates import Cluster, aler
from pytest_defuse.rules.trees import Condition, Node, evaluated, fit_tree, matches, rule_words


def data(seed: int = 0, images: int = 400, features: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features of which 7 and 31 make failure likely."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((images, features)).astype(np.float32)
    rate = 0.1 + 0.4 * (values[:, 31] > 0.5) + 0.3 * (values[:, 7] <= -0.5)
    return values, random.random(images) < rate


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_paper_is_the_pipeline_of_the_papers_code(depth: int, seed: int) -> None:
    """Mutual information, the top 20, an entropy tree with balanced classes: rules and rates are scikit-learn's."""
    features, failed = data(seed)
    settings = ExplainSettings(selection="paper", depth=depth, min_leaf=8)
    tree = fit_tree(features, failed, settings, seed=seed)

    information = mutual_info_classif(features, failed, random_state=seed)
    top = np.argsort(-information, kind="stable")[:20]
    literal = DecisionTreeClassifier(
        criterion="entropy", class_weight="balanced", max_depth=depth, min_samples_leaf=8, random_state=seed
    ).fit(features[:, top], failed)
    routed = literal.apply(features[:, top])
    expected = {
        Cluster(int(failed[routed == leaf].sum()), int((routed == leaf).sum()), int(failed.sum()), len(failed))
        for leaf in np.unique(routed)
    }
    assert {leaf.cluster for leaf in tree.leaves()} == expected
    split = tree.children[0].path[0]
    assert split.feature == top[literal.tree_.feature[0]]
    assert split.threshold == literal.tree_.threshold[0]
    rate = {leaf: failed[routed == leaf].mean() for leaf in np.unique(routed)}
    literal_aler = sum(rate[leaf] * failed[routed == leaf].sum() / failed.sum() for leaf in rate)
    assert aler(leaf.cluster for leaf in tree.leaves()) == pytest.approx(literal_aler)


def test_conditions_have_the_features_number_not_its_rank() -> None:
    features, failed = data()
    tree = fit_tree(features, failed, ExplainSettings(top=2, depth=2))
    assert {condition.feature for node in tree.leaves() for condition in node.path} == {7, 31}


def nodes(tree: Node) -> list[Node]:
    """A node and all nodes below it."""
    return [tree, *(node for child in tree.children for node in nodes(child))]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nodes_count_the_images_that_match_their_path(depth: int) -> None:
    features, failed = data()
    tree = fit_tree(features[:200], failed[:200], ExplainSettings(depth=depth))
    fresh = evaluated(tree, features[200:], failed[200:])
    for node in nodes(fresh):
        matching = matches(node.path, features[200:])
        assert node.cluster == Cluster(
            int(failed[200:][matching].sum()), int(matching.sum()), int(failed[200:].sum()), 200
        )
        assert len(node.path) <= depth
    assert sum(leaf.cluster.images for leaf in fresh.leaves()) == 200
    assert sum(leaf.cluster.error_coverage for leaf in fresh.leaves()) == pytest.approx(1)


def test_no_leaf_is_smaller_than_min_leaf() -> None:
    features, failed = data()
    for min_leaf in (1, 25, 120):
        tree = fit_tree(features, failed, ExplainSettings(depth=3, min_leaf=min_leaf))
        assert min(leaf.cluster.images for leaf in tree.leaves()) >= min_leaf


@pytest.mark.parametrize("selection", ["gain", "paper"])
@pytest.mark.parametrize("failed", [np.zeros(40, bool), np.ones(40, bool)], ids=["none failed", "all failed"])
def test_without_both_outcomes_there_is_only_a_root(failed: np.ndarray, selection: str) -> None:
    tree = fit_tree(data(images=40)[0], failed, ExplainSettings(selection=selection))
    assert tree.children == ()
    assert tree.cluster.images == 40


def test_a_threshold_between_neighbouring_floats_separates_them() -> None:
    below = np.float32(1)
    above = np.nextafter(below, np.float32(2))
    middle = (float(below) + float(above)) / 2
    assert Condition(0, middle, above=True).matches(np.array([[below], [above]])).tolist() == [False, True]


def test_rules_read_as_sentences() -> None:
    path = (Condition(17, 0.36412, above=False, name="buckle"), Condition(3, 1.2, above=True))
    assert rule_words(path) == "feature 17 'buckle' <= 0.3641 and feature 3 > 1.2"
    assert rule_words(()) == "all images"


def test_conditions_have_the_names_of_features() -> None:
    features, failed = data()
    tree = fit_tree(features, failed, ExplainSettings(), names={31: "stripes", 2: "sky"})
    assert tree.children[0].path[0].name == "stripes"
