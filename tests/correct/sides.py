"""Images with one bright half, a net that classifies which, and misleading images on which it is wrong."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.correct.correction import Correction, correct
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.sheets import Pixels
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject
from tests.scenarios.planting import plant

SIDES = ("left", "right")
THOROUGH = CorrectionSettings(lambdas=(1.0,), epochs=8, rates=(3e-3,), batch=32, scenario_batch=16, augment="none")
BRIEF = CorrectionSettings(lambdas=(0.5,), epochs=1, rates=(1e-2,), batch=32, scenario_batch=8, alphas=(1.0,))


def sides(count: int, seed: int, *, misleading: bool = False) -> list[tuple[Pixels, int]]:
    """Noisy 6 x 6 grey images with one bright half; in misleading ones only its last row, and more of the other."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=count)
    images = generator.integers(0, 60, size=(count, 1, 6, 6))
    for image, label in zip(images, labels, strict=True):
        half, other = (image[..., 3 * side : 3 * side + 3] for side in (label, 1 - label))
        half[:, 5 if misleading else 0 :] += 180
        other[:, : 3 if misleading else 0] += 180
    return [(image, int(label)) for image, label in zip(images.astype(np.uint8), labels, strict=True)]


class Net(nn.Module):
    """A small classifier with batch normalisation, dropout, and a layer to freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(1, 1, 1)
        self.hidden = nn.Linear(36, 32)
        self.norm = nn.BatchNorm1d(32)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(32, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(F.relu(self.norm(self.hidden(self.scale(images).flatten(1))))))


def trained_net() -> Net:
    """A net that classifies the sides correctly, unless an image is misleading."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        pairs = sides(300, seed=0)
        images = torch.from_numpy(np.stack([image for image, _ in pairs])) / 255
        labels = torch.tensor([label for _, label in pairs])
        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()
    net.zero_grad()
    return net.eval()


def subject_of(net: Net) -> Subject:
    """The subject of most tests: a copy of the net, one of whose parameters is frozen."""
    net = copy.deepcopy(net)
    net.scale.requires_grad_(False)
    return Subject(name="sides", model=net, classes=SIDES, train=sides(300, seed=0), test=sides(50, seed=1))


def planted(store: Store, label: str = "left", seed: int = 2) -> Scenario:
    """Misleading images of one side, which the net classifies as the other."""
    tiles = np.stack([image for image, side in sides(120, seed, misleading=True) if SIDES[side] == label])
    other = SIDES[1 - SIDES.index(label)]
    return plant(store, tiles[:25], tiles[25:50], label, other, SIDES, status="accepted", label=label)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@contextmanager
def untouched(subject: Subject) -> Iterator[None]:
    """Assert that the block, even with an error, changes neither the model nor the global random numbers."""

    def state() -> tuple[Any, ...]:
        model = subject.model
        return (
            {name: value.tolist() for name, value in model.state_dict().items()},
            [(name, module.training) for name, module in model.named_modules()],
            [(name, p.requires_grad, p.grad) for name, p in model.named_parameters()],
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            random.getstate(),
        )

    before = state()
    try:
        yield
    finally:
        assert state() == before


def correction_of(subject: Subject, *scenarios: Scenario, **options: Any) -> Correction:
    """A brief correction with its states next to the store."""
    options = {"cache": scenarios[0].folder.parents[1] / "cache" if scenarios else Path(), **options}
    return correct(subject, scenarios, options.pop("minimum", {}), options.pop("settings", BRIEF), **options)
