from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse import Subject
from pytest_defuse.explain import RobustSettings, train_robust
from pytest_defuse.explain.robust_training import robust_network
from pytest_defuse.runtime import training
from pytest_defuse.runtime.determinism import seed_all
from pytest_defuse.subject.images import content_hash
from tests.recorder import interrupted_at

QUICK = RobustSettings(radius=0.3, steps=60, batch_size=64, width=4)


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Two classes that differ slightly in every pixel: their means are 1.1 apart in L2."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    pixels = 110 + 36 * labels[:, None, None, None] + 12 * torch.randn(400, 1, 8, 8, generator=random)
    data = list(zip(pixels.clamp(0, 255).to(torch.uint8), labels.tolist(), strict=True))
    return Subject("faint", nn.Linear(1, 1), ["dark", "bright"], train=data, test=data)


def worst_case_accuracy(network: nn.Module, subject: Subject, radius: float) -> float:
    """Accuracy after one long step along the gradient."""
    images = (subject.test_images.pixels.float() / 255).requires_grad_()
    labels = subject.test_images.labels
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(images), labels), images)
    attacked = images + radius * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-12)
    return (network(attacked).argmax(1) == labels).double().mean().item()


@pytest.mark.slow
def test_training_against_attacks_makes_a_network_robust(subject: Subject) -> None:
    with torch.random.fork_rng():
        ordinary = train_robust(subject, settings=RobustSettings(radius=1e-6, steps=60, batch_size=64, width=4))
    robust = train_robust(subject, settings=QUICK)
    assert worst_case_accuracy(robust, subject, 0.0) > 0.9
    assert worst_case_accuracy(robust, subject, 0.3) >= worst_case_accuracy(ordinary, subject, 0.3)
    assert worst_case_accuracy(robust, subject, 0.3) > 0.8


def test_the_network_is_in_eval_mode_and_random_numbers_are_not_changed(subject: Subject) -> None:
    before = torch.get_rng_state()
    network = train_robust(subject, settings=RobustSettings(steps=2, width=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    assert network(torch.rand(3, 1, 8, 8)).shape == (3, 2)


def test_weights_are_read_from_the_cache(subject: Subject, tmp_path: Path) -> None:
    brief = RobustSettings(steps=3, width=2)
    first = train_robust(subject, settings=brief, cache=tmp_path)
    (file,) = tmp_path.glob("robust-*.safetensors")
    written = file.stat().st_mtime_ns
    again = train_robust(subject, settings=brief, cache=tmp_path)
    assert file.stat().st_mtime_ns == written
    assert content_hash(*first.state_dict().values()) == content_hash(*again.state_dict().values())
    other = train_robust(subject, settings=brief, cache=tmp_path, seed=1)
    assert content_hash(*first.state_dict().values()) != content_hash(*other.state_dict().values())


def test_another_normalize_trains_another_network(subject: Subject, tmp_path: Path) -> None:
    settings = RobustSettings(steps=1, width=2)
    for normalize in (None, lambda x: x - 0.5, lambda x: x - 0.4):
        train_robust(replace(subject, normalize=normalize), settings=settings, cache=tmp_path)
    assert len(list(tmp_path.glob("robust-*.safetensors"))) == 3


def test_an_interrupted_training_resumes_and_gives_the_same_bits(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    settings = RobustSettings(steps=6, width=2)
    whole = train_robust(subject, settings=settings)
    with pytest.raises(KeyboardInterrupt):
        train_robust(subject, settings=settings, cache=tmp_path, progress=interrupted_at(4))
    seeds: list[int] = []
    monkeypatch.setattr(training, "seed_all", lambda seed, device: seeds.append(seed) or seed_all(seed, device))
    resumed = train_robust(subject, settings=settings, cache=tmp_path)
    assert len(seeds) == 2, "four of six steps were done before"
    assert content_hash(*resumed.state_dict().values()) == content_hash(*whole.state_dict().values())


def test_a_users_network_is_trained_in_place(subject: Subject) -> None:
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    before = own[1].weight.clone()
    assert train_robust(subject, own, RobustSettings(steps=2)) is own
    assert not torch.equal(own[1].weight, before)


def test_settings_are_accepted_under_their_old_names() -> None:
    with pytest.warns(DeprecationWarning, match="RobustSettings: (updates|batch|rate) is now called ") as warnings:
        settings = RobustSettings.of({"updates": 3, "batch": 5, "rate": 0.1})
    assert settings == RobustSettings(steps=3, batch_size=5, learning_rate=0.1)
    assert len(warnings) == 3


def test_the_default_network_averages_its_last_maps() -> None:
    network = robust_network(3, 5, width=2)
    outputs: list[Tensor] = []
    network[-3].register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert outputs[0].shape == (2, 16, 8, 8)
