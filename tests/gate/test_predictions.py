from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.gate import predictions
from pytest_defuse.gate.predictions import Predictions, predict_scenarios, predict_test
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.sharing import Sharing
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.sheets import pixel_hash
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject import images
from pytest_defuse.subject.images import content_hash
from pytest_defuse.subject.subject import Subject
from tests.scenarios.planting import exclude, plant, random_tiles

CLASSES = [str(digit) for digit in range(10)]


class Counting(nn.Module):
    """Notes the size of every batch."""

    sizes: list[int]

    def __init__(self) -> None:
        super().__init__()
        Counting.sizes = []
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        Counting.sizes.append(len(images))
        logits: Tensor = self.head(images.flatten(1))
        return logits


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    pairs = [(tile, index % 10) for index, tile in enumerate(random_tiles(600))]
    return Subject("digits", Counting(), CLASSES, pairs, pairs)


@pytest.fixture
def scenarios(tmp_path: Path) -> list[Scenario]:
    """Five small scenarios."""
    store = Store(tmp_path / "digits")
    return [
        plant(store, random_tiles(4), random_tiles(60, seed=10 + seed), status="accepted", label="3")
        for seed in range(5)
    ]


def test_small_scenarios_go_through_the_model_together(subject: Subject, scenarios: list[Scenario]) -> None:
    model = subject.classifier()
    together = predict_scenarios(subject, model, scenarios)
    assert sum(Counting.sizes) == 300
    assert len(Counting.sizes) < len(scenarios)
    assert list(together) == [scenario.id for scenario in scenarios]
    for scenario in scenarios:
        tiles = scenario.pixels("held_out")
        shares = model.logits(torch.from_numpy(tiles)).softmax(1)
        predictions = together[scenario.id]
        assert isinstance(predictions, Predictions)
        assert predictions.sha256 == pixel_hash(tiles)
        assert predictions.predicted == tuple(str(index) for index in shares.argmax(1).tolist())
        np.testing.assert_allclose(predictions.confidences, shares.amax(1).numpy(), atol=1e-4)


def test_excluded_tiles_do_not_go_through(subject: Subject, scenarios: list[Scenario]) -> None:
    scenario = exclude(scenarios[0], "held_out", 0, 7)
    assert scenario.record.sheets.held_out.kept == [*range(1, 7), *range(8, 60)]
    predict_scenarios(subject, subject.classifier(), [scenario])
    assert sum(Counting.sizes) == 58


def test_one_broken_scenario_leaves_the_others_whole(subject: Subject, scenarios: list[Scenario]) -> None:
    scenarios[2].sheet_file("held_out").unlink()
    predictions = predict_scenarios(subject, subject.classifier(), scenarios)
    assert [isinstance(value, DefuseError) for value in predictions.values()] == [False, False, True, False, False]
    assert "held_out.png is missing" in str(predictions[scenarios[2].id])


def test_processes_share_their_forward_passes(subject: Subject, scenarios: list[Scenario], tmp_path: Path) -> None:
    alone = predict_scenarios(subject, subject.classifier(), scenarios), predict_test(subject, subject.classifier())
    scenarios[4].sheet_file("held_out").unlink()
    Counting.sizes.clear()
    found = []
    for worker in (0, 1):
        sharing = Sharing(tmp_path, worker)
        model = subject.classifier()
        found.append((predict_scenarios(subject, model, scenarios, sharing), predict_test(subject, model, sharing)))
    assert sum(Counting.sizes) == 240 + 600
    assert found[0][0].keys() == found[1][0].keys()
    assert found[0][1] == found[1][1] == alone[1]
    for scenario in scenarios[:4]:
        assert found[0][0][scenario.id] == found[1][0][scenario.id] == alone[0][scenario.id]
    assert str(found[0][0][scenarios[4].id]) == str(found[1][0][scenarios[4].id])


def test_the_test_set_is_hashed_once_however_many_parts_it_has(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []

    def counted(*parts: Tensor) -> str:
        hashed.append(len(parts[0]))
        return content_hash(*parts)

    monkeypatch.setattr(images, "content_hash", counted)
    monkeypatch.setattr(predictions, "BATCHES_PER_PART", 1)
    model = subject.classifier()
    model.batches.size = 1
    predict_test(subject, model)
    assert hashed == [len(subject.test)]
    assert hashed[0] > 1


def test_another_model_shares_nothing(subject: Subject, scenarios: list[Scenario], tmp_path: Path) -> None:
    other = replace(subject, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    first = predict_test(subject, subject.classifier(), Sharing(tmp_path))
    second = predict_test(other, other.classifier(), Sharing(tmp_path))
    assert first.predicted != second.predicted
    assert first.sha256 == second.sha256


def test_another_test_set_shares_nothing(subject: Subject, tmp_path: Path) -> None:
    others = [(tile, 0) for tile in random_tiles(600, seed=5)]
    model, sharing = subject.classifier(), Sharing(tmp_path, 0)
    predict_test(subject, model, sharing)
    other = replace(subject, test=others)
    assert predict_test(other, model, sharing) == predict_test(other, model)
