import math

import pytest
import torch
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from pytest_defuse import Subject
from pytest_defuse.explain import failure_modes as explain
from pytest_defuse.explain.failure_modes import (
    MIN_FAILURES,
    FailureMode,
    Leaf,
    Split,
    aler,
    best_split,
    class_groups,
    failure_modes,
    find_failure_modes,
    leaves,
)
from pytest_defuse.images import content_hash

CLASSES = ["cat", "dog", "eel"]


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def groups_of(failed: Tensor, seed: int) -> list[tuple[str, Tensor]]:
    """Groups of images with random labels, on which a failure predicts the next class."""
    labels = torch.randint(len(CLASSES), failed.shape, generator=random(seed))
    return list(class_groups(CLASSES, labels, (labels + failed) % len(CLASSES)))


def mode(threshold: float = 0.5, above: bool = True) -> FailureMode:
    return FailureMode("label cat", 17, threshold, above, 0.5, 0.25, 0.75, 60)


class TestBestSplit:
    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.parametrize("levels", [None, 4], ids=["distinct", "tied"])
    def test_equals_a_decision_tree_of_depth_one(self, seed: int, levels: int | None) -> None:
        generator = random(seed)
        features = torch.randn(150, 12, generator=generator)
        if levels:
            features = (features * levels).round() / levels
        failed = torch.rand(150, generator=generator) < torch.sigmoid(features[:, 5] - 1)
        tree = DecisionTreeClassifier(max_depth=1, criterion="entropy", class_weight="balanced", random_state=0)
        tree.fit(features.numpy(), failed.numpy())
        nodes = tree.tree_
        share = nodes.weighted_n_node_samples / nodes.weighted_n_node_samples[0]
        split = best_split(features, failed)
        assert split is not None
        assert split.gain == pytest.approx(nodes.impurity[0] - share[1:] @ nodes.impurity[1:])
        assert split.feature == nodes.feature[0]
        assert split.threshold == pytest.approx(nodes.threshold[0])
        assert split.above(features).tolist() == (tree.apply(features.numpy()) == 2).tolist()

    def test_a_clean_split_gains_one_bit(self) -> None:
        features = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
        split = best_split(features, torch.tensor([True, False, False, False]))
        assert split is not None
        assert (split.feature, split.threshold) == (1, 2.5)
        assert split.gain == pytest.approx(1)

    def test_of_equal_features_the_first_wins_even_mirrored(self) -> None:
        feature = torch.randn(50, generator=random(0))
        failed = feature > 0.7
        failed[:5] = ~failed[:5]
        split = best_split(torch.stack([-feature, feature, -feature], dim=1), failed)
        assert split is not None
        assert split.feature == 0

    def test_a_threshold_between_neighbouring_floats_parts_them(self) -> None:
        below = torch.tensor(1.0)
        above = torch.nextafter(below, torch.tensor(2.0))
        # Rounded to float32, the number halfway is one of the two: whichever is even.
        for low, high in ((below, above), (above, torch.nextafter(above, torch.tensor(2.0)))):
            features = torch.stack([low, high])[:, None]
            split = best_split(features, torch.tensor([False, True]))
            assert split is not None
            assert split.above(features).tolist() == [False, True]

    @pytest.mark.parametrize(
        ("features", "failed"),
        [
            (torch.ones(4, 2), torch.tensor([True, False, True, False])),
            (torch.eye(4), torch.zeros(4, dtype=torch.bool)),
            (torch.eye(4), torch.ones(4, dtype=torch.bool)),
            (torch.empty(0, 2), torch.empty(0, dtype=torch.bool)),
        ],
        ids=["constant features", "no failure", "failures only", "no image"],
    )
    def test_nothing_to_gain_is_no_split(self, features: Tensor, failed: Tensor) -> None:
        assert best_split(features, failed) is None


class TestRates:
    def test_the_papers_syringe(self) -> None:
        """Barlow's 'syringe' by prediction: the leaves fail on 139 of 395 and 145 of 1,011."""
        tree = [Leaf(139, 395, 284, 1406), Leaf(145, 1011, 284, 1406)]
        assert tree[0].base_error_rate == pytest.approx(0.2020, abs=5e-5)
        assert tree[0].error_rate == pytest.approx(0.3519, abs=5e-5)
        assert tree[0].error_coverage == pytest.approx(0.4894, abs=5e-5)
        assert aler(tree[:1]) == pytest.approx(0.1722, abs=5e-5)
        assert aler(tree) == pytest.approx(0.2455, abs=5e-5)

    def test_leaves_share_out_their_group(self) -> None:
        features = torch.randn(80, 3, generator=random(1))
        failed = features[:, 1] > 0.5
        failed[::9] = True
        split = best_split(features, failed)
        assert split is not None
        tree = leaves(split, features, failed)
        assert sum(leaf.images for leaf in tree.values()) == 80
        assert sum(leaf.error_coverage for leaf in tree.values()) == pytest.approx(1)
        assert max(leaf.error_rate for leaf in tree.values()) >= aler(tree.values()) >= failed.float().mean()
        assert tree[True].failures == int(failed[features[:, 1] > split.threshold].sum())

    def test_empty_leaves_and_groups_without_failures_divide_by_nothing(self) -> None:
        empty, spared = Leaf(0, 0, 5, 9), Leaf(0, 4, 0, 9)
        assert (empty.error_rate, empty.error_coverage, empty.p_value) == (0, 0, 1)
        assert (spared.base_error_rate, spared.error_coverage, spared.p_value) == (0, 0, 1)
        assert aler([empty, spared]) == 0

    def test_the_p_value_counts_draws(self) -> None:
        """Two failures among 2 of 4 images: one of the 6 ways to draw 2 of them."""
        assert Leaf(2, 2, 2, 4).p_value == pytest.approx(1 / math.comb(4, 2))


class TestFailureMode:
    def test_the_rule_says_which_side(self) -> None:
        assert mode(0.8234, above=True).rule == "feature 17 > 0.823"
        assert mode(-0.82, above=False).rule == "feature 17 <= -0.82"

    def test_importance_is_error_rate_times_coverage(self) -> None:
        assert mode().importance == 0.375


class TestFindFailureModes:
    @staticmethod
    def planted(seed: int, images: int = 1500) -> tuple[Tensor, Tensor]:
        """24 features, of which number 17 makes failure likely when it is large."""
        features = torch.randn(images, 24, generator=random(seed))
        rate = torch.where(features[:, 17] > 0.8, 0.6, 0.1)
        return features, torch.rand(images, generator=random(seed + 1000)) < rate

    @pytest.mark.parametrize("seed", range(5))
    def test_a_planted_feature_is_found_first(self, seed: int) -> None:
        features, failed = self.planted(seed)
        modes = find_failure_modes(features, failed, groups_of(failed, seed), seed=seed)
        assert modes
        assert modes[0].feature == 17
        assert modes[0].above
        assert modes[0].threshold == pytest.approx(0.8, abs=0.3)
        assert modes[0].error_rate == pytest.approx(0.6, abs=0.2)
        assert modes == sorted(modes, key=lambda mode: -mode.importance)

    def test_failures_that_come_at_random_have_no_mode(self) -> None:
        """Not even without the margins delta and tau, which alone let much of chance through."""
        quiet = 0
        for seed in range(20):
            features, failed = self.planted(seed, images=900)
            failed = failed[torch.randperm(len(failed), generator=random(seed))]
            groups = groups_of(failed, seed)
            quiet += not find_failure_modes(features, failed, groups, delta=0, tau=0, seed=seed)
        assert quiet >= 19

    def test_delta_and_tau_are_margins(self) -> None:
        features, failed = self.planted(0)
        groups = groups_of(failed, 0)
        modes = find_failure_modes(features, failed, groups, delta=0, tau=0)
        gap = max(mode.error_rate - mode.base_error_rate for mode in modes)
        coverage = max(mode.error_coverage for mode in modes)
        assert find_failure_modes(features, failed, groups, delta=gap + 1e-9, tau=0) == []
        assert find_failure_modes(features, failed, groups, delta=0, tau=coverage + 1e-9) == []

    def test_few_failures_are_passed_over(self) -> None:
        failed = torch.arange(400) < 2 * MIN_FAILURES - 1
        everything = [("label cat", torch.ones(400, dtype=torch.bool))]
        assert find_failure_modes(failed[:, None].float(), failed, everything) == []

    def test_rates_are_measured_on_the_half_that_did_not_choose(self, monkeypatch: pytest.MonkeyPatch) -> None:
        features, failed = self.planted(2, images=1000)
        chose = []

        def spy(half: Tensor, failed: Tensor) -> Split | None:
            chose.append(torch.isin(features[:, 0], half[:, 0]))
            return best_split(half, failed)

        monkeypatch.setattr(explain, "best_split", spy)
        (found,) = find_failure_modes(features, failed, [("label cat", torch.ones(1000, dtype=torch.bool))])
        measured = ~chose[0]
        assert measured.sum() == 500
        picked = measured & (features[:, found.feature] > found.threshold)
        assert found.images == picked.sum()
        assert found.error_rate == pytest.approx(failed[picked].double().mean().item())
        assert found.base_error_rate == pytest.approx(failed[measured].double().mean().item())

    def test_groups_carry_class_names(self) -> None:
        groups = dict(class_groups(CLASSES, torch.tensor([0, 1, 2]), torch.tensor([0, 0, 2])))
        assert list(groups) == [f"{kind} {name}" for kind in ("label", "prediction") for name in CLASSES]
        assert groups["label dog"].tolist() == [False, True, False]
        assert groups["prediction cat"].tolist() == [True, True, False]


class BrightnessNet(nn.Module):
    """Tells cats from dogs by the first pixel; its features are the pixels. Draws a number in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)
        self.dropout = nn.Dropout()
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[1, 0] = 1.0
            self.head.bias.copy_(torch.tensor([0.5, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        logits: Tensor = self.dropout(self.head(x.flatten(1)))
        return logits


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Images whose label is the wrong one half of the time when pixel 9 is bright."""
    pixels = torch.randint(256, (1200, 1, 4, 4), dtype=torch.uint8, generator=random(0))
    bright = pixels.flatten(1)[:, 9] > 170
    wrong = bright & (torch.rand(1200, generator=random(1)) < 0.5)
    labels = (pixels.flatten(1)[:, 0] > 127) ^ wrong
    data = list(zip(pixels, labels.long().tolist(), strict=True))
    return Subject(name="pets", model=BrightnessNet().train(), classes=["cat", "dog"], train=data, test=data)


class TestFailureModes:
    def test_the_feature_behind_the_failures_is_named(self, subject: Subject) -> None:
        """Among images with one label, the pixel that the model judges by tells its failures even better."""
        modes = failure_modes(subject, subject.classifier())
        features = {(mode.group, mode.feature) for mode in modes}
        assert features == {("label cat", 0), ("label dog", 0), ("prediction cat", 9), ("prediction dog", 9)}
        for mode in modes[-2:]:
            assert mode.rule.startswith("feature 9 > 0.6")
            assert mode.error_rate == pytest.approx(0.5, abs=0.1)
            assert mode.error_coverage > 0.9

    def test_same_seed_same_modes(self, subject: Subject) -> None:
        first, again, other = (failure_modes(subject, subject.classifier(), seed=seed) for seed in (3, 3, 4))
        assert first == again
        assert first != other

    def test_nothing_of_the_users_changes(self, subject: Subject) -> None:
        def state() -> tuple[object, ...]:
            model = subject.model
            return (
                content_hash(*model.state_dict().values()),
                [module.training for module in model.modules()],
                [parameter.requires_grad for parameter in model.parameters()],
                [len(module._forward_pre_hooks) for module in model.modules()],
                torch.get_rng_state().tolist(),
            )

        before = state()
        failure_modes(subject, subject.classifier())
        assert state() == before
