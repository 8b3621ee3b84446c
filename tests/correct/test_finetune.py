import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scenarios.planting import exclude, plant
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.correct.finetune import Correction, CorrectionSettings, Trial, choose, correct
from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.accuracy import Accuracy
from pytest_defuse.progress import Advance, Progress
from pytest_defuse.scenarios.sheets import Pixels
from pytest_defuse.scenarios.store import Scenario, Store
from pytest_defuse.subject import Subject

SIDES = ("left", "right")
THOROUGH = CorrectionSettings(weights=(0.0, 1.0), epochs=8, rate=3e-3, batch=32, scenario_batch=16)
BRIEF = CorrectionSettings(weights=(0.0, 0.5), epochs=1, rate=1e-2, batch=32, scenario_batch=8)


def sides(count: int, seed: int, *, misleading: bool = False) -> list[tuple[Pixels, int]]:
    """Noisy 6 x 6 grey images of which one half is bright; misleading: its last row alone, and more of the other."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=count)
    images = generator.integers(0, 60, size=(count, 1, 6, 6))
    for image, label in zip(images, labels, strict=True):
        half, other = (image[..., 3 * side : 3 * side + 3] for side in (label, 1 - label))
        half[:, 5 if misleading else 0 :] += 180
        other[:, : 3 if misleading else 0] += 180
    return [(image, int(label)) for image, label in zip(images.astype(np.uint8), labels, strict=True)]


class Net(nn.Module):
    """A small classifier with what correction must treat with care: batch normalisation, dropout, a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(1, 1, 1)
        self.hidden = nn.Linear(36, 32)
        self.norm = nn.BatchNorm1d(32)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(32, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(F.relu(self.norm(self.hidden(self.scale(images).flatten(1))))))


@pytest.fixture(scope="module")
def trained() -> Net:
    """A net that tells the sides apart, unless an image is misleading."""
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
    return net.eval()


@pytest.fixture
def subject(trained: Net) -> Subject:
    net = copy.deepcopy(trained).requires_grad_(True)
    net.scale.requires_grad_(False)
    net.zero_grad()
    return Subject(name="sides", model=net, classes=SIDES, train=sides(300, seed=0), test=sides(50, seed=1))


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """Misleading images of the left side, which the net takes for the right one."""
    return planted(Store(tmp_path / "sides"), "left", seed=2)


def planted(store: Store, label: str, seed: int) -> Scenario:
    tiles = np.stack([image for image, side in sides(120, seed, misleading=True) if SIDES[side] == label])
    other = SIDES[1 - SIDES.index(label)]
    return plant(store, tiles[:25], tiles[25:50], label, other, SIDES, status="accepted", label=label)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@contextmanager
def untouched(subject: Subject) -> Iterator[None]:
    """Whatever happens inside: the model and everybody's random numbers are as before."""

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
    return correct(subject, scenarios, options.pop("least", {}), options.pop("settings", BRIEF), **options)


def test_finetuning_on_a_scenario_mends_it_and_keeps_the_rest(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(subject, scenario, settings=THOROUGH, least={scenario.id: 0.9})
    assert correction.before.scenarios[scenario.id] < 0.1
    assert correction.before.validation == 1
    chosen = correction.chosen
    assert chosen.weight == 1
    assert chosen.scenarios[scenario.id] >= 0.9
    assert chosen.validation >= 0.95
    labels = subject.classifier(model=chosen.model).predict(torch.from_numpy(scenario.pixels("held_out")))
    assert labels.eq(0).float().mean() >= 0.9


def test_more_training_alone_is_tried_as_a_control(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(subject, scenario, settings=THOROUGH)
    control = correction.trials[0]
    assert control.weight == 0
    assert control.scenarios[scenario.id] < 0.5
    assert 0 in CorrectionSettings().weights


def test_the_control_does_not_depend_on_the_scenarios(subject: Subject, scenario: Scenario) -> None:
    other = planted(scenario.store, "right", seed=3)
    first, second = (correction_of(subject, one).trials[0].model for one in (scenario, other))
    assert same(weights(first), weights(second))


def test_a_trial_does_not_depend_on_the_others(subject: Subject, scenario: Scenario) -> None:
    among = correction_of(subject, scenario).trials[1]
    alone = correction_of(subject, scenario, settings=replace(BRIEF, weights=(0.5,))).trials[0]
    assert among.weight == alone.weight
    assert same(weights(among.model), weights(alone.model))


def test_every_scenario_is_scored_in_every_trial(subject: Subject, scenario: Scenario) -> None:
    other = planted(scenario.store, "right", seed=3)
    correction = correction_of(subject, scenario, other)
    assert [trial.weight for trial in correction.trials] == [0.0, 0.5]
    for trial in (correction.before, *correction.trials):
        assert {name: accuracy.total for name, accuracy in trial.scenarios.items()} == {scenario.id: 25, other.id: 25}
    assert correction.chosen in correction.trials


def test_excluded_tiles_are_not_learned(subject: Subject, scenario: Scenario) -> None:
    changed = exclude(scenario, "correction", *range(5))
    assert correction_of(subject, changed).before.scenarios[scenario.id].total == 20


def test_held_out_tiles_and_test_labels_are_not_looked_at(subject: Subject, scenario: Scenario) -> None:
    first = correction_of(subject, scenario)
    scenario.picture("held_out").unlink()
    flipped = replace(subject, test=[(image, 1 - label) for image, label in subject.test])
    second = correction_of(flipped, scenario)
    assert second.chosen.weight == first.chosen.weight
    assert same(weights(second.chosen.model), weights(first.chosen.model))


def test_a_tenth_of_the_training_set_validates_where_no_set_is_given(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(subject, scenario)
    assert correction.before.validation.total == 30
    assert "a tenth of the training set" in correction.validation_source


def test_the_validation_set_of_the_subject_is_used(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(replace(subject, validation=sides(17, seed=4)), scenario)
    assert correction.before.validation.total == 17
    assert correction.validation_source == "the subject's validation set"


def test_the_same_seed_gives_the_same_bits(subject: Subject, scenario: Scenario) -> None:
    def models(seed: int) -> list[dict[str, Tensor]]:
        torch.manual_seed(random.randrange(2**32))  # what came before must not matter
        return [weights(trial.model) for trial in correction_of(subject, scenario, seed=seed).trials]

    first, again, other = models(1), models(1), models(2)
    assert all(map(same, first, again))
    assert not any(map(same, first, other))


@pytest.mark.parametrize("training", [True, False])
def test_the_subjects_model_is_left_as_it_was(subject: Subject, scenario: Scenario, training: bool) -> None:
    subject.model.train(training)
    subject.model.norm.train(not training)
    with untouched(subject):
        correction = correction_of(subject, scenario)
    for trial in correction.trials:
        assert not same(weights(trial.model), weights(subject.model))


def test_an_error_in_the_model_leaves_it_as_it_was(
    subject: Subject, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    forward = Net.forward

    def fragile(self: Net, images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise RuntimeError("out of memory")
        return forward(self, images)

    monkeypatch.setattr(Net, "forward", fragile)
    with untouched(subject), pytest.raises(RuntimeError, match="out of memory"):
        correction_of(subject, scenario)


class Watched(Progress):
    """Counts steps, and calls a function at every one."""

    def __init__(self, at_step: Callable[[int], None] = lambda _: None) -> None:
        self.done = self.total = 0
        self.at_step = at_step

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        self.total = total

        def advance(steps: int, note: str = "") -> None:
            self.done += steps
            self.at_step(self.done)

        yield advance


def test_an_interrupt_leaves_the_model_as_it_was(subject: Subject, scenario: Scenario) -> None:
    def interrupt(done: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with untouched(subject), pytest.raises(KeyboardInterrupt):
        correction_of(subject, scenario, progress=Watched(interrupt))


def test_the_announced_steps_are_taken(subject: Subject, scenario: Scenario) -> None:
    progress = Watched()
    correction_of(subject, scenario, progress=progress)
    assert progress.done == progress.total == 2 * 9  # two weights, 270 training images in batches of 32


def test_frozen_parameters_stay_as_they_are(subject: Subject, scenario: Scenario) -> None:
    for trial in correction_of(subject, scenario).trials:
        for (name, before), after in zip(subject.model.named_parameters(), trial.model.parameters(), strict=True):
            assert torch.equal(before, after) == name.startswith("scale.")
            assert before.requires_grad == after.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_a_corrected_model_is_in_the_originals_modes(subject: Subject, scenario: Scenario, training: bool) -> None:
    subject.model.train(training)
    subject.model.norm.train(not training)
    for trial in correction_of(subject, scenario).trials:
        modes = zip(subject.model.modules(), trial.model.modules(), strict=True)
        assert all(before.training == after.training for before, after in modes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_can_be_corrected(
    subject: Subject, scenario: Scenario, dtype: torch.dtype
) -> None:
    other = replace(subject, model=copy.deepcopy(subject.model).to(dtype))
    chosen = correction_of(other, scenario).chosen
    assert {parameter.dtype for parameter in chosen.model.parameters()} == {dtype}


@pytest.mark.parametrize("images", [33, 65])
def test_batch_normalisation_is_never_fed_a_single_image(subject: Subject, scenario: Scenario, images: int) -> None:
    odd = replace(subject, train=sides(images, seed=0), validation=sides(20, seed=4))
    correction_of(odd, scenario)


def test_the_normalisation_of_the_subject_is_applied(subject: Subject, scenario: Scenario) -> None:
    seen: list[tuple[float, float]] = []

    def halved(images: Tensor) -> Tensor:
        seen.append((images.min().item(), images.max().item()))
        return images / 2

    class Doubled(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images * 2)

    doubled = Doubled()
    doubled.load_state_dict(subject.model.state_dict())
    doubled.scale.requires_grad_(False)
    correction = correction_of(replace(subject, model=doubled.eval(), normalize=halved), scenario)
    assert all(0 <= low < high <= 1 for low, high in seen)
    assert same(weights(correction.chosen.model), weights(correction_of(subject, scenario).chosen.model))


def test_a_model_that_is_all_frozen_is_refused(subject: Subject, scenario: Scenario) -> None:
    subject.model.requires_grad_(False)
    with pytest.raises(DefuseError) as caught:
        correction_of(subject, scenario)
    assert str(caught.value) == (
        "Every parameter of the model of subject 'sides' has requires_grad=False: leave those that correction may "
        "change at True."
    )


def test_nothing_to_correct_is_said(subject: Subject) -> None:
    with untouched(subject), pytest.raises(DefuseError, match="nothing to correct: no scenario is accepted"):
        correction_of(subject)


def test_a_label_that_the_subject_does_not_have_is_refused(subject: Subject, scenario: Scenario) -> None:
    other = replace(subject, classes=("west", "east"))
    with untouched(other), pytest.raises(DefuseError, match="'left' is not a class of subject 'sides'"):
        correction_of(other, scenario)


def test_tiles_of_another_size_are_refused(subject: Subject, scenario: Scenario) -> None:
    larger = replace(subject, test=[(np.zeros((1, 7, 7), dtype=np.uint8), 0)])
    with untouched(larger), pytest.raises(DefuseError, match=r"correction\.png holds images of 6 x 6 grey"):
        correction_of(larger, scenario)


def trial(weight: float, validation: float, *scenarios: float) -> Trial:
    """A trial of 100 validation images, and scenarios a, b, ... of 100 tiles each."""
    names = zip("abc", scenarios, strict=False)
    scores = {name: Accuracy(round(100 * score), 100) for name, score in names}
    return Trial(weight, Accuracy(round(100 * validation), 100), scores, nn.Identity())


@pytest.mark.parametrize(
    ("trials", "least", "weight"),
    [
        ([trial(0, 0.99, 0.1), trial(0.1, 0.97, 0.92), trial(1, 0.95, 0.99)], {"a": 0.9}, 0.1),
        ([trial(0, 0.99, 0.1), trial(0.1, 0.95, 0.92), trial(1, 0.97, 0.99)], {"a": 0.9}, 1),
        ([trial(0, 0.99, 0.95), trial(0.1, 0.98, 0.99)], {"a": 0.9}, 0),
        ([trial(0, 0.97, 0.9), trial(0.1, 0.97, 0.99), trial(1, 0.97, 1)], {"a": 0.9}, 0),
        ([trial(0, 0.99, 0.1), trial(0.1, 0.97, 0.7), trial(1, 0.5, 0.8)], {"a": 0.9}, 1),
        ([trial(0, 0.99, 0.1), trial(0.1, 0.97, 0.7), trial(1, 0.98, 0.7)], {"a": 0.9}, 0.1),
        ([trial(0, 0.99, 0.95, 0.1), trial(1, 0.97, 0.91, 0.91)], {"a": 0.9, "b": 0.9}, 1),
        ([trial(0, 0.99, 1, 0.5), trial(1, 0.97, 0.7, 0.7)], {"a": 0.9, "b": 0.9}, 1),
        ([trial(0, 0.99, 0.5, 0.5), trial(1, 0.97, 0.8, 0.5)], {"a": 0.8, "b": 0.4}, 1),
        ([trial(0, 0.97, 0.0), trial(1, 0.99, 0.0)], {}, 1),
    ],
    ids=[
        "best validation among those that meet the bound",
        "a larger weight where it validates better",
        "the control where it will do",
        "the smaller weight at a tie",
        "the least miss where none meets the bound",
        "the smaller weight at a tie of misses",
        "every scenario has to meet its bound",
        "the worst scenario decides how far a miss is",
        "bounds differ between scenarios",
        "no bound is always met",
    ],
)
def test_choosing(trials: list[Trial], least: dict[str, float], weight: float) -> None:
    assert choose(trials, least).weight == weight
