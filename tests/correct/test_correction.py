"""Correction: which trial is chosen, which images it may use, and what it must not change."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.correct.search import Search
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject
from tests.correct.sides import BRIEF, THOROUGH, Net, correction_of, planted, same, sides, untouched, weights
from tests.recorder import Recorder
from tests.scenarios.planting import exclude


def test_finetuning_on_a_scenario_fixes_it_and_keeps_accuracy(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(subject, scenario, settings=THOROUGH, minimum={scenario.id: 0.9})
    assert correction.before.scenarios[scenario.id] < 0.1
    assert correction.before.validation == 1
    chosen = correction.chosen
    assert chosen.scenarios[scenario.id] >= 0.9
    assert chosen.validation >= 0.95
    labels = subject.classifier(model=correction.model).predict(torch.from_numpy(scenario.pixels("held_out")))
    assert labels.eq(0).float().mean() >= 0.9


@pytest.mark.slow
def test_the_control_is_trained_without_scenarios(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(subject, scenario, settings=THOROUGH)
    control = correction.control
    assert (control.lambda_, control.learning_rate, control.epochs) == (0, 3e-3, 8)
    assert control in correction.trials
    assert control.scenarios[scenario.id] < 0.5
    assert not same(weights(correction.control_model), weights(subject.model))


@pytest.mark.slow
def test_the_control_has_the_alpha_of_the_chosen_trial(subject: Subject, scenario: Scenario) -> None:
    settings = THOROUGH.replace(alphas=(0.9,), aim=0.5)
    correction = correction_of(subject, scenario, settings=settings, minimum={scenario.id: 0.5})
    assert correction.chosen.alpha == 0.9
    control = correction.control
    assert (control.lambda_, control.learning_rate, control.epochs, control.alpha) == (0, 3e-3, 8, 0.9)
    assert control in correction.trials


def test_the_control_of_the_grid_is_at_the_chosen_epoch(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(subject, scenario, settings=BRIEF.replace(search="grid", lambdas=(0.5,), epochs=2))
    search = Search.__new__(Search)
    search.trials = list(correction.trials)
    for trial in correction.trials:
        if trial.lambda_:
            assert search.control(trial).epochs == trial.epochs


def test_every_pass_through_the_model_is_counted(
    subject: Subject, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, forward = {True: 0, False: 0}, Net.forward

    def counted(self: Net, inputs: Tensor) -> Tensor:
        images[torch.is_grad_enabled()] += len(inputs)
        return forward(self, inputs)

    monkeypatch.setattr(Net, "forward", counted)
    settings = BRIEF.replace(alphas=(0.5, 1.0), batch_norm="batch", distill=0.5)
    correction = correction_of(subject, scenario, settings=settings)
    assert correction.image_passes == images[True]
    identity = 8  # the logits of the fixed images, which are not of the correction
    assert correction.forward_passes == images[False] - identity


@pytest.mark.slow
def test_the_control_does_not_depend_on_the_scenarios(subject: Subject, scenario: Scenario) -> None:
    other = planted(Store.of(scenario), "right", seed=3)
    first, second = (correction_of(subject, one).control_model for one in (scenario, other))
    assert same(weights(first), weights(second))


def test_a_trial_does_not_depend_on_the_others(subject: Subject, scenario: Scenario) -> None:
    among = correction_of(subject, scenario, settings=BRIEF.replace(lambdas=(0.1, 0.5)), seed=1)
    alone = correction_of(subject, scenario, settings=BRIEF, seed=1, cache=scenario.folder / "elsewhere")
    for first in among.trials:
        for second in alone.trials:
            if (first.lambda_, first.alpha) == (second.lambda_, second.alpha):
                assert first.mean_accuracy == second.mean_accuracy
                assert first.scenarios == second.scenarios


def test_every_trial_is_evaluated_on_every_scenario(subject: Subject, scenario: Scenario) -> None:
    other = planted(Store.of(scenario), "right", seed=3)
    correction = correction_of(subject, scenario, other)
    for trial in (correction.before, *correction.trials):
        assert {name: accuracy.total for name, accuracy in trial.scenarios.items()} == {scenario.id: 25, other.id: 25}
    assert correction.chosen in correction.trials


def test_excluded_tiles_are_not_used(subject: Subject, scenario: Scenario) -> None:
    changed = exclude(scenario, "correction", *range(5))
    assert correction_of(subject, changed).before.scenarios[scenario.id].total == 20


def test_held_out_tiles_and_test_labels_are_not_used(subject: Subject, scenario: Scenario) -> None:
    first = correction_of(subject, scenario)
    scenario.sheet_file("held_out").unlink()
    first.remove_states()
    flipped = replace(subject, test=[(image, 1 - label) for image, label in subject.test])
    second = correction_of(flipped, scenario)
    assert same(weights(second.model), weights(first.model))


def test_a_tenth_of_the_training_set_validates_where_no_set_is_given(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(subject, scenario)
    assert correction.before.validation.total in (29, 30)
    assert "a tenth of the training set" in correction.validation_source


def test_the_validation_set_of_the_subject_is_used(subject: Subject, scenario: Scenario) -> None:
    correction = correction_of(replace(subject, validation=sides(17, seed=4)), scenario)
    assert correction.before.validation.total == 17
    assert correction.validation_source == "the subject's validation set"


def test_the_same_seed_gives_the_same_bits(subject: Subject, scenario: Scenario) -> None:
    def model(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(random.randrange(2**32))  # the state of the global random numbers must not matter
        correction = correction_of(subject, scenario, seed=seed, settings=BRIEF.replace(alphas=(0.5,)))
        correction.remove_states()
        return weights(correction.model)

    first, again, other = model(1), model(1), model(2)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("training", [True, False])
def test_the_subjects_model_is_not_changed(subject: Subject, scenario: Scenario, training: bool) -> None:
    subject.model.train(training)
    subject.model.norm.train(not training)
    with untouched(subject):
        correction = correction_of(subject, scenario)
    modes = zip(subject.model.modules(), correction.model.modules(), strict=True)
    assert all(before.training == after.training for before, after in modes)
    flags = zip(subject.model.parameters(), correction.model.parameters(), strict=True)
    assert all(before.requires_grad == after.requires_grad for before, after in flags)


def test_an_error_in_the_model_does_not_change_it(
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
    with untouched(subject), pytest.raises(DefuseError, match="out of memory"):
        correction_of(subject, scenario)


def test_progress_counts_the_announced_steps_with_notes(subject: Subject, scenario: Scenario) -> None:
    progress = Recorder()
    correction_of(subject, scenario, settings=BRIEF.replace(lambdas=(0.1, 0.3, 1.0), epochs=2), progress=progress)
    assert progress.done == progress.total == (3 + 1 + 2) * 9  # two rungs, the control; 270 images in batches of 32
    assert progress.notes[0].startswith("lambda 0.1, epoch 1, loss ")
    assert progress.notes[-1].startswith("lambda 0, epoch 2, loss ")


def test_a_model_that_is_all_frozen_is_refused(subject: Subject, scenario: Scenario) -> None:
    subject.model.requires_grad_(False)
    with pytest.raises(DefuseError) as caught:
        correction_of(subject, scenario)
    assert str(caught.value) == (
        "Every parameter of the model of subject 'sides' has requires_grad=False: set it to True for those that "
        "correction may change."
    )


def test_a_state_that_a_checkpoint_cannot_hold_is_refused_before_the_work(
    subject: Subject, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Net, "get_extra_state", lambda self: {"version": 2}, raising=False)
    monkeypatch.setattr(Net, "set_extra_state", lambda self, state: None, raising=False)
    progress = Recorder()
    with pytest.raises(DefuseError, match="has a dict under '_extra_state', but a checkpoint can only contain tensors"):
        correction_of(subject, scenario, progress=progress)
    assert progress.done == 0


def test_nothing_to_correct_is_refused(subject: Subject) -> None:
    with untouched(subject), pytest.raises(DefuseError, match="nothing to correct, because no scenario is accepted"):
        correction_of(subject)


@pytest.mark.parametrize("classes", [("west", "east"), ("right", "left")], ids=["others", "reordered"])
def test_classes_that_are_not_those_of_the_store_are_refused(
    subject: Subject, scenario: Scenario, classes: tuple[str, str]
) -> None:
    other = replace(subject, classes=classes)
    with untouched(other), pytest.raises(DefuseError, match=f"class 0 is 'left', but in .* it is '{classes[0]}'"):
        correction_of(other, scenario)


def test_tiles_of_another_size_are_refused(subject: Subject, scenario: Scenario) -> None:
    larger = replace(subject, test=[(np.zeros((1, 7, 7), dtype=np.uint8), 0)])
    with untouched(larger), pytest.raises(DefuseError, match=r"correction\.png has images of 6 x 6 grey"):
        correction_of(larger, scenario)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    subject: Subject, scenario: Scenario, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with untouched(subject), pytest.raises(DefuseError, match=r"cannot be written.*--defuse-cache"):
        correction_of(subject, scenario, cache=tmp_path / "file" / "cache")


def test_states_on_disk_can_be_removed(subject: Subject, scenario: Scenario) -> None:
    cache = scenario.folder / "cache"
    correction = correction_of(subject, scenario, cache=cache)
    assert any(correction.folder.iterdir())
    correction.remove_states()
    assert not list(cache.iterdir())
    assert isinstance(correction.model, nn.Module)
