"""Unusual models and data sets."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from pytest_defuse.correct.checkpoints import save_checkpoint
from pytest_defuse.correct.data import correction_data
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject
from tests.correct.sides import BRIEF, SIDES, THOROUGH, Net, correction_of, planted, same, sides, trained_net, weights
from tests.scenarios.planting import exclude


def test_a_model_without_batch_norm(subject: Subject, scenario: Scenario) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    corrected = correction_of(replace(subject, model=plain), scenario, settings=THOROUGH)
    assert corrected.chosen.scenarios[scenario.id] >= 0.9
    assert corrected.chosen.validation >= 0.9


def test_a_model_with_much_dropout_is_evaluated_without_it(subject: Subject, scenario: Scenario) -> None:
    subject.model.dropout.p = 0.9
    first, second = (correction_of(subject, scenario).chosen for _ in range(2))
    assert first.scenarios == second.scenarios
    assert first.mean_accuracy == second.mean_accuracy


def test_parameters_without_gradients_are_not_trained(subject: Subject, scenario: Scenario) -> None:
    corrected = correction_of(subject, scenario)
    for (name, before), after in zip(subject.model.named_parameters(), corrected.model.parameters(), strict=True):
        assert torch.equal(before, after) == name.startswith("scale.")


@pytest.mark.slow
def test_a_compiled_model_gives_weights_that_the_plain_one_loads(
    subject: Subject, scenario: Scenario, tmp_path: Path
) -> None:
    compiled = replace(subject, model=torch.compile(subject.model, backend="eager"))
    corrected = correction_of(compiled, scenario)
    assert same(weights(corrected.model), weights(correction_of(subject, scenario, cache=tmp_path / "plain").model))
    save_checkpoint(tmp_path / "net.safetensors", corrected.model, {})
    assert load_model(trained_net(), tmp_path / "net.safetensors") == (set(), [])


@pytest.mark.parametrize("at_once", [7, 40])
def test_a_batch_that_exceeds_memory_is_split(subject: Subject, scenario: Scenario, at_once: int) -> None:
    class Small(Net):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > at_once:
                raise torch.OutOfMemoryError
            return super().forward(images)

    small = Small()
    small.load_state_dict(subject.model.state_dict())
    small.eval().scale.requires_grad_(False)
    small.dropout.p = subject.model.dropout.p = 0.0
    settings = BRIEF.replace(at_once=at_once)
    split = correction_of(replace(subject, model=small), scenario, settings=settings).model.state_dict()
    whole = correction_of(subject, scenario, settings=BRIEF).model.state_dict()
    assert all(torch.allclose(split[name], whole[name], atol=1e-2) for name in whole)


def test_training_images_from_a_generator_of_batches(subject: Subject, scenario: Scenario, tmp_path: Path) -> None:
    pairs = sides(300, seed=0)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, 300, 64):
            batch = pairs[start : start + 64]
            yield torch.from_numpy(np.stack([image for image, _ in batch])), torch.tensor([label for _, label in batch])

    streamed = correction_of(replace(subject, train=batches()), scenario, cache=tmp_path / "streamed")
    assert same(weights(streamed.model), weights(correction_of(subject, scenario).model))


def test_a_rare_class_stays_in_training(subject: Subject, scenario: Scenario) -> None:
    rare = [pair for pair in sides(300, seed=0) if pair[1] == 1] + [pair for pair in sides(9, seed=5) if pair[1] == 0]
    parts = correction_data(replace(subject, train=rare), [scenario], BRIEF)
    count = sum(label == 0 for _, label in rare)
    assert int((parts.train.labels == 0).sum()) == count
    assert len(parts.train) + len(parts.validation) == len(rare)


def test_no_trial_is_scored_on_tiles_that_it_was_trained_on(subject: Subject, scenario: Scenario) -> None:
    """A sheet of an earlier version, or one that people brought, can hold validation images."""
    tiles = [(tile, 0) for tile in scenario.pixels("correction")]
    other = sides(40, seed=9)
    parts = correction_data(replace(subject, validation=[*other, *tiles]), [scenario], BRIEF)
    assert len(parts.validation) == len(other)
    with pytest.raises(DefuseError, match="Every validation image is also a correction tile"):
        correction_data(replace(subject, validation=tiles), [scenario], BRIEF)


@pytest.mark.slow
def test_a_scenario_with_a_rare_label_does_not_dominate(subject: Subject, scenario: Scenario) -> None:
    rare = [pair for pair in sides(300, seed=0) if pair[1] == 1] + [pair for pair in sides(9, seed=5) if pair[1] == 0]
    corrected = correction_of(replace(subject, train=rare), scenario, settings=THOROUGH, minimum={scenario.id: 0.9})
    assert corrected.chosen.scenarios[scenario.id] >= 0.9
    predictions = subject.classifier(model=corrected.model).predict(subject.test_images.pixels)
    labels = subject.test_images.labels
    for label in range(len(SIDES)):
        assert (predictions[labels == label] == label).float().mean() >= 0.9


def test_the_smaller_scenario_is_drawn_as_often_as_the_larger(subject: Subject, scenario: Scenario) -> None:
    small = exclude(planted(Store.of(scenario), "right", seed=3), "correction", *range(20))
    seen: list[Tensor] = []
    settings = BRIEF.replace(scenario_batch=200, mixup=0.0, augment=lambda images: seen.append(images) or images)
    correction_of(subject, scenario, small, settings=settings)
    tiles = torch.cat([images for images in seen if len(images) == 200]) * 255
    tiles_of_small = torch.from_numpy(small.pixels("correction"))
    drawn = (tiles[:, None] == tiles_of_small[None]).flatten(2).all(dim=2).any(dim=1).double().mean()
    assert len(tiles_of_small) == 5
    assert 0.4 < drawn < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_keeps_its_precision(subject: Subject, scenario: Scenario, tmp_path: Path, dtype: torch.dtype) -> None:
    other = replace(subject, model=copy.deepcopy(subject.model).to(dtype))
    corrected = correction_of(other, scenario, settings=THOROUGH.replace(rates=(1e-3,), alphas=(0.5, 1.0)))
    assert {parameter.dtype for parameter in corrected.model.parameters()} == {dtype}
    assert corrected.chosen.scenarios[scenario.id] > 0.5
    save_checkpoint(tmp_path / "net.safetensors", corrected.model, {})
    again = Net().to(dtype)
    load_model(again, tmp_path / "net.safetensors")
    assert same(weights(again), weights(corrected.model))


def test_tied_weights_stay_tied(subject: Subject, scenario: Scenario, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(36, 36), nn.Linear(36, 36)
            self.second.weight = self.first.weight
            self.head = nn.Linear(36, 2)
            self.register_buffer("seen", torch.tensor(7))

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.second(self.first(images.flatten(1)).relu()).relu())

    corrected = correction_of(replace(subject, model=Tied()), scenario, settings=BRIEF.replace(alphas=(0.5, 1.0))).model
    assert corrected.first.weight is corrected.second.weight
    save_checkpoint(tmp_path / "net.safetensors", corrected, {})
    again = Tied()
    load_model(again, tmp_path / "net.safetensors")
    assert same(weights(again), weights(corrected))
    assert again.first.weight is again.second.weight


@pytest.mark.parametrize("images", [33, 65])
def test_batch_normalisation_never_trains_on_a_single_image(subject: Subject, scenario: Scenario, images: int) -> None:
    odd = replace(subject, train=sides(images, seed=0), validation=sides(20, seed=4))
    correction_of(odd, scenario, settings=BRIEF.replace(batch_norm="batch"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_model_on_a_gpu(subject: Subject, scenario: Scenario) -> None:
    corrected = correction_of(replace(subject, model=subject.model.cuda()), scenario, device="cuda")
    assert {value.device.type for value in corrected.model.state_dict().values()} == {"cuda"}
