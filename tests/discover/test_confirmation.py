"""Which of given regions become candidates, and with which images."""

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
from tests.discover.synthetic_halves import BrighterHalf, HalvesGenerator

Confirm = Callable[..., tuple[Candidate, ...]]

LEVELS = torch.tensor([[-3.0, 3.0], [3.0, -3.0], [-2.0, 2.0], [2.0, -2.0]])
IMAGES = list(zip(HalvesGenerator().decode(LEVELS), [0, 1, 0, 1], strict=True))
SHIFTED = BrighterHalf(0.0507)  # wrong where the left half is brighter by less than 0.507 in the code


class WrongIfClose(BrighterHalf):
    """Predicts the wrong class where the codes of the halves differ by less than 2."""

    def forward(self, x: Tensor) -> Tensor:
        close = (x[:, 0, 0, 0] - x[:, 0, 0, 7]).abs() < 0.2
        return super().forward(x) * torch.where(close, -1, 1)[:, None]


class WrongInAThird(BrighterHalf):
    """Predicts the wrong class for about a third of the images, wherever their codes are."""

    def forward(self, x: Tensor) -> Tensor:
        levels = (x * 255).round().long()
        third = (levels[:, 0, 0, 0] * 7919 + levels[:, 0, 0, 7] * 104729) % 3 == 0
        return super().forward(x) * torch.where(third, -1, 1)[:, None]


def region(mean: float, std: float, label: int = 1, weight: float = 1.0) -> Region:
    """Images of any brightness whose left half is brighter by ``mean`` +- ``std`` in the code."""
    common, difference = np.array([1.0, 1.0]), np.array([0.5, -0.5])
    covariance = 2.0**2 * np.outer(common, common) + std**2 * np.outer(difference, difference)
    return Region(mean * difference, covariance, 1.0, label, 1 - label, weight)


@pytest.fixture
def confirmed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Confirm:
    def confirm(model: nn.Module, *regions: Region, confirmations: int = 256, tiles: int = 20) -> tuple[Candidate, ...]:
        monkeypatch.setattr(module, "trained_generator", lambda *_, **__: HalvesGenerator())
        monkeypatch.setattr(module, "distill", lambda *_: list(regions))
        settings = DiscoverySettings(budget=80, tiles=tiles, confirmations=confirmations)
        subject = Subject("halves", model, ["right", "left"], IMAGES, IMAGES, judges=[BrighterHalf()])
        return discover(subject, settings, cache=tmp_path).candidates

    return confirm


def share_left(images: Tensor) -> float:
    return (images[:, 0, 0, 0] > images[:, 0, 0, 7]).double().mean().item()


def test_a_region_that_fails_nearly_always_is_a_candidate(confirmed: Confirm) -> None:
    (candidate,) = confirmed(SHIFTED, region(0.26, 0.05))
    assert candidate.failure_rate > 0.95


def test_a_region_that_rarely_fails_is_no_candidate(confirmed: Confirm) -> None:
    assert confirmed(SHIFTED, region(0.8, 0.2)) == ()


@pytest.mark.slow
def test_a_region_that_fails_in_three_of_five_draws_requires_many_draws(confirmed: Confirm) -> None:
    assert confirmed(SHIFTED, region(0.45, 0.2), confirmations=40) == ()
    (candidate,) = confirmed(SHIFTED, region(0.45, 0.2), confirmations=2000, tiles=256)
    assert 0.5 < candidate.interval[0] < candidate.failure_rate < 0.65


@pytest.mark.slow
def test_failures_of_another_label_do_not_count(confirmed: Confirm) -> None:
    assert confirmed(WrongIfClose(), region(0.0, 0.3)) == ()
    assert len(confirmed(WrongIfClose(), region(1.0, 0.3, label=1))) == 1
    assert confirmed(WrongIfClose(), region(1.0, 0.3, label=0)) == ()


def test_sheets_are_full_and_show_the_label_alone(confirmed: Confirm) -> None:
    (candidate,) = confirmed(SHIFTED, region(0.2, 0.2))
    assert candidate.failure_rate < 0.9  # one draw in six shows the other label
    assert share_left(candidate.correction) == share_left(candidate.held_out) == 1
    assert len(candidate.correction) == len(candidate.held_out) == 20
    images = torch.cat([candidate.correction, candidate.held_out])
    # There are only a few hundred different images of this kind, so some draws are equal by chance.
    assert len(images.unique(dim=0)) >= 35


def test_every_confirmed_region_is_a_candidate_of_its_own(confirmed: Confirm) -> None:
    regions = [region(-1.0, 0.1, label=0, weight=0.3), region(1.0, 0.1, weight=0.5), region(0.0, 0.1, weight=0.2)]
    found = confirmed(WrongIfClose(), *regions)
    assert [candidate.region.label for candidate in found] == [1, 0]
    assert [share_left(candidate.held_out) for candidate in found] == [1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("clustering", ["joint", "plain"])
def test_failures_without_structure_are_no_candidate(tmp_path: Path, clustering: str) -> None:
    codes = 2 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    images = [
        (image, int(code[0] > code[1])) for image, code in zip(HalvesGenerator().decode(codes), codes, strict=True)
    ]
    subject = Subject(
        "halves",
        WrongInAThird(),
        ["right", "left"],
        images,
        images,
        judges=[BrighterHalf()],
        generator=HalvesGenerator(),
    )
    settings = DiscoverySettings(budget=8000, clustering=clustering)
    found = discover(subject, settings, cache=tmp_path)
    assert found.failures > 500
    assert all(0.2 < region.failure_rate < 0.45 for region in found.regions)
    assert found.candidates == ()
