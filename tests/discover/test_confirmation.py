"""Which regions become candidates, and with which pictures, where the regions are given."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_defuse import Subject
from pytest_defuse.discover import discovery as module
from pytest_defuse.discover.discovery import Candidate, discover
from pytest_defuse.discover.regions import Region
from pytest_defuse.discover.settings import DiscoverySettings
from tests.discover.synthetic_halves import Brighter, Halves

Confirm = Callable[..., tuple[Candidate, ...]]

LEVELS = torch.tensor([[-3.0, 3.0], [3.0, -3.0], [-2.0, 2.0], [2.0, -2.0]])
IMAGES = list(zip(Halves().decode(LEVELS), [0, 1, 0, 1], strict=True))
NEARLY = Brighter(0.0507)  # wrong where the left half is brighter by less than 0.507 in the code


class Contrary(Brighter):
    """Says the contrary where the halves differ by less than 2 in the code."""

    def forward(self, x: Tensor) -> Tensor:
        close = (x[:, 0, 0, 0] - x[:, 0, 0, 7]).abs() < 0.2
        return super().forward(x) * torch.where(close, -1, 1)[:, None]


class Arbitrary(Brighter):
    """Says the contrary of about every third picture, wherever its code lies."""

    def forward(self, x: Tensor) -> Tensor:
        levels = (x * 255).round().long()
        third = (levels[:, 0, 0, 0] * 7919 + levels[:, 0, 0, 7] * 104729) % 3 == 0
        return super().forward(x) * torch.where(third, -1, 1)[:, None]


def region(excess: float, spread: float, label: int = 1, weight: float = 1.0) -> Region:
    """Images whose left half is brighter by about ``excess``, of any brightness."""
    common, difference = np.array([1.0, 1.0]), np.array([0.5, -0.5])
    covariance = 2.0**2 * np.outer(common, common) + spread**2 * np.outer(difference, difference)
    return Region(excess * difference, covariance, 1.0, label, 1 - label, weight)


@pytest.fixture
def confirmed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Confirm:
    def confirm(model: nn.Module, *regions: Region, confirmations: int = 256) -> tuple[Candidate, ...]:
        monkeypatch.setattr(module, "trained_generator", lambda *_, **__: Halves())
        monkeypatch.setattr(module, "distill", lambda *_: list(regions))
        settings = DiscoverySettings(budget=80, images=20, confirmations=confirmations)
        subject = Subject("halves", model, ["right", "left"], IMAGES, IMAGES, judges=[Brighter()])
        return discover(subject, settings, cache=tmp_path).candidates

    return confirm


def share_left(tiles: Tensor) -> float:
    return (tiles[:, 0, 0, 0] > tiles[:, 0, 0, 7]).double().mean().item()


def test_a_region_that_fails_nearly_always_is_a_candidate(confirmed: Confirm) -> None:
    (candidate,) = confirmed(NEARLY, region(0.26, 0.05))
    assert candidate.failure_rate > 0.95


def test_a_region_that_hardly_fails_is_none(confirmed: Confirm) -> None:
    assert confirmed(NEARLY, region(0.8, 0.2)) == ()


def test_a_region_that_fails_in_three_of_five_needs_many_draws_to_be_sure(confirmed: Confirm) -> None:
    assert confirmed(NEARLY, region(0.45, 0.2), confirmations=40) == ()
    (candidate,) = confirmed(NEARLY, region(0.45, 0.2), confirmations=2000)
    assert 0.5 < candidate.interval[0] < candidate.failure_rate < 0.65


def test_failures_of_another_label_do_not_count(confirmed: Confirm) -> None:
    assert confirmed(Contrary(), region(0.0, 0.3)) == ()
    assert len(confirmed(Contrary(), region(1.0, 0.3, label=1))) == 1
    assert confirmed(Contrary(), region(1.0, 0.3, label=0)) == ()


def test_full_sheets_of_the_label_alone_and_no_draw_twice(confirmed: Confirm) -> None:
    (candidate,) = confirmed(NEARLY, region(0.2, 0.2))
    assert candidate.failure_rate < 0.9  # one draw in six shows the other label
    assert share_left(candidate.correction) == share_left(candidate.held_out) == 1
    assert len(candidate.correction) == len(candidate.held_out) == 20
    tiles = torch.cat([candidate.correction, candidate.held_out])
    assert len(tiles.unique(dim=0)) >= 35  # this world holds a few hundred such pictures: some draws meet by chance


def test_every_confirmed_region_is_a_candidate_of_its_own(confirmed: Confirm) -> None:
    given = [region(-1.0, 0.1, label=0, weight=0.3), region(1.0, 0.1, weight=0.5), region(0.0, 0.1, weight=0.2)]
    found = confirmed(Contrary(), *given)
    assert [candidate.region.label for candidate in found] == [1, 0]
    assert [share_left(candidate.held_out) for candidate in found] == [1, 0]


@pytest.mark.parametrize("clustering", ["joint", "plain"])
def test_failures_without_structure_are_no_candidate(tmp_path: Path, clustering: str) -> None:
    codes = 2 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    images = [(image, int(code[0] > code[1])) for image, code in zip(Halves().decode(codes), codes, strict=True)]
    subject = Subject("halves", Arbitrary(), ["right", "left"], images, images, judges=[Brighter()], generator=Halves())
    settings = DiscoverySettings(budget=8000, clustering=clustering)
    found = discover(subject, settings, cache=tmp_path)
    assert found.failures > 500
    assert all(0.2 < region.failure_rate < 0.45 for region in found.regions)
    assert found.candidates == ()
