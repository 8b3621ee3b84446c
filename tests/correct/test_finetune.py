"""The objective of a step, with everything that a user can replace."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.correct.data import correction_data
from pytest_defuse.correct.finetune import Finetuning, plain_copy
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.subject.subject import Subject
from tests.correct.sides import BRIEF, Net, correction_of, same, sides, weights

Train = Callable[..., nn.Module]
PLAIN = BRIEF.replace(augment="none", mixup=0.0)


@pytest.fixture
def finetuned(subject: Subject, scenario: Scenario, tmp_path: Path) -> Train:
    """The model after some epochs with changed settings; each run has its own folder."""
    runs = 0

    def train(lambda_: float = 0.5, epochs: int = 1, **changes: Any) -> nn.Module:
        nonlocal runs
        runs += 1
        settings = PLAIN.replace(**changes)
        images = correction_data(subject, [scenario], settings)
        folder = tmp_path / f"run{runs}"
        finetuning = Finetuning(subject, images, settings, seed=0, device="cpu", folder=folder)
        return plain_copy(subject.model, finetuning.weights(lambda_, 1e-2, epochs))

    return train


def moved(model: nn.Module, original: nn.Module) -> set[str]:
    after = model.state_dict()
    return {name for name, value in original.state_dict().items() if not torch.equal(value, after[name])}


def test_lambda_weights_the_scenarios(finetuned: Train, scenario: Scenario) -> None:
    tiles = torch.from_numpy(scenario.pixels("correction")) / 255
    wrong = [F.cross_entropy(finetuned(lambda_).eval()(tiles), torch.zeros(25).long()) for lambda_ in (0, 0.1, 3)]
    assert wrong[0] > wrong[1] > wrong[2]


def test_a_users_loss_is_minimized_on_training_images(finetuned: Train) -> None:
    calls = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(labels))
        return F.cross_entropy(logits, labels)

    assert same(weights(finetuned(loss=loss)), weights(finetuned()))
    assert sum(calls) == 271


def test_a_train_step_samples_its_own_images(finetuned: Train) -> None:
    seen: list[int] = []

    def step(model: nn.Module, number: int) -> Tensor:
        seen.append(number)
        assert model.training
        pairs = sides(8, seed=number)
        images = torch.stack([torch.from_numpy(image) for image, _ in pairs]) / 255
        return F.cross_entropy(model(images), torch.tensor([label for _, label in pairs]))

    model = finetuned(epochs=2, train_step=step)
    assert seen == list(range(18))
    assert not same(weights(model), weights(finetuned(epochs=2)))


def test_frozen_parameters_are_not_trained(finetuned: Train, subject: Subject) -> None:
    model = finetuned(frozen=("hidden.*", "norm.*"))
    assert moved(model, subject.model) == {"head.weight", "head.bias"}


def test_a_pattern_that_matches_no_parameter_is_refused(finetuned: Train) -> None:
    with pytest.raises(DefuseError, match=r"'body\.\*' matches no parameter .* which has scale\.weight, scale\.bias"):
        finetuned(frozen=("body.*",))


def test_frozen_batch_norm_keeps_its_statistics(finetuned: Train, subject: Subject) -> None:
    model = finetuned(frozen=("norm.*",), batch_norm="batch")
    assert not any(name.startswith("norm.") for name in moved(model, subject.model))


def test_batch_statistics_change_only_with_batch_norm_batch(finetuned: Train, subject: Subject) -> None:
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert not moved(finetuned(batch_norm="fixed"), subject.model) & statistics
    assert moved(finetuned(batch_norm="batch"), subject.model) >= statistics


def test_distillation_stays_near_the_old_predictions(finetuned: Train, subject: Subject) -> None:
    images = torch.stack([torch.from_numpy(image) for image, _ in sides(50, seed=1)]) / 255
    old = subject.model(images).log_softmax(dim=1)

    def divergence(distill: float) -> float:
        new = finetuned(3.0, epochs=3, distill=distill).eval()(images).log_softmax(dim=1)
        return F.kl_div(new, old, log_target=True, reduction="batchmean").item()

    assert divergence(10.0) < divergence(0.0)


def test_a_users_augmentation_is_applied_to_every_image(finetuned: Train) -> None:
    seen = 0

    def augment(images: Tensor) -> Tensor:
        nonlocal seen
        seen += len(images)
        assert images.min() >= 0
        assert images.max() <= 1
        return images

    finetuned(augment=augment)
    assert seen == 271 + 9 * BRIEF.scenario_batch


@pytest.mark.parametrize(
    "settings", [{"augment": "mild"}, {"mixup": 1.0}, {"optimizer": "sgd"}, {"schedule": "constant"}]
)
def test_every_setting_of_training_matters(finetuned: Train, settings: dict[str, Any]) -> None:
    assert not same(weights(finetuned(**settings)), weights(finetuned()))


def test_a_users_optimizer_is_used(finetuned: Train) -> None:
    model = finetuned(optimizer=lambda parameters, rate: torch.optim.Adam(parameters, lr=rate))
    assert same(weights(model), weights(finetuned()))


def test_the_normalisation_of_the_subject_is_applied(subject: Subject, scenario: Scenario) -> None:
    class Doubled(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images * 2)

    doubled = Doubled()
    doubled.load_state_dict(subject.model.state_dict())
    doubled.scale.requires_grad_(False)
    halved = replace(subject, model=doubled.eval(), normalize=lambda images: images / 2)
    plain, changed = correction_of(subject, scenario), correction_of(halved, scenario)
    assert same(weights(changed.model), weights(plain.model))


def test_a_loss_that_is_nan_is_reported(finetuned: Train) -> None:
    with pytest.raises(DefuseError, match=r"NaN at step 1 of finetuning with lambda 0.5 and .*rates=0.01\): lower the"):
        finetuned(loss=lambda logits, labels: logits.sum() * float("nan"))
