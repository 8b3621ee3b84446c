"""An interrupted correction resumes and ends with the same bits."""

import copy
import os
import signal
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pytest_defuse.correct.correction import Correction
from pytest_defuse.runtime import training
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject
from tests.correct.sides import BRIEF, Net, correction_of, planted, same, subject_of, untouched, weights
from tests.recorder import Recorder, interrupted_at
from tests.runtime.test_training import Trap

pytestmark = pytest.mark.slow

SETTINGS = BRIEF.replace(lambdas=(0.1, 0.5), epochs=2, alphas=(0.5, 1.0), augment="mild")
STEPS = (2 + 1 + 2) * 9

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.correct.sides import correction_of, subject_of, trained_net
from tests.recorder import Recorder
from tests.correct.test_resume import SETTINGS
from pytest_defuse.scenarios.store import Store

def die(done):
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

scenarios = Store(Path(sys.argv[1]) / "sides").scenarios("accepted")
correction_of(subject_of(trained_net()), *scenarios, settings=SETTINGS, progress=Recorder(die))
"""


@pytest.fixture(scope="module")
def whole(trained: Net, tmp_path_factory: pytest.TempPathFactory) -> Correction:
    """The correction that nothing interrupts."""
    scenario = planted(Store(tmp_path_factory.mktemp("whole") / "sides"))
    return correction_of(subject_of(trained), scenario, settings=SETTINGS)


def interrupted(subject: Subject, scenario: Scenario, step: int) -> None:
    with untouched(subject), pytest.raises(KeyboardInterrupt):
        correction_of(subject, scenario, settings=SETTINGS, progress=interrupted_at(step))


@pytest.mark.parametrize("step", [5, 9, 14, 30, STEPS])
@pytest.mark.parametrize("save_every", [0.0, 60.0])
def test_an_interrupted_correction_ends_with_the_same_bits(
    subject: Subject,
    scenario: Scenario,
    whole: Correction,
    step: int,
    save_every: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", save_every)
    interrupted(subject, scenario, step)
    resumed = correction_of(subject, scenario, settings=SETTINGS)
    assert same(weights(resumed.model), weights(whole.model))
    assert same(weights(resumed.control_model), weights(whole.control_model))
    assert [trial.mean_accuracy for trial in resumed.trials] == [trial.mean_accuracy for trial in whole.trials]


def test_finished_epochs_are_not_run_again(subject: Subject, scenario: Scenario) -> None:
    interrupted(subject, scenario, 30)  # in the fourth epoch of five
    progress = Recorder()
    correction_of(subject, scenario, settings=SETTINGS, progress=progress)
    assert progress.done == progress.total == STEPS
    assert sum("loss" in note for note in progress.notes) == 2 * 9


def test_steps_of_an_unfinished_epoch_are_not_taken_again(
    subject: Subject, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    interrupted(subject, scenario, 30)  # three steps into the fourth epoch of five
    progress = Recorder()
    correction_of(subject, scenario, settings=SETTINGS, progress=progress)
    assert progress.done == progress.total == STEPS
    assert sum("loss" in note for note in progress.notes) == 6 + 9


class Queue(torch.optim.SGD):
    """An optimizer whose state cannot be stored: its momentum is the last gradient but one."""

    def step(self, closure: None = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            queue = self.state[parameter].setdefault("queue", deque(maxlen=2))
            queue.append(parameter.grad.clone())
            parameter.grad += queue[0]
        super().step()


def test_an_optimizer_whose_state_cannot_be_stored_starts_again(subject: Subject, scenario: Scenario) -> None:
    settings = SETTINGS.replace(optimizer=lambda parameters, rate: Queue(parameters, lr=rate))
    whole, resumed = Recorder(), interrupted_at(5)
    first = correction_of(subject, scenario, settings=settings, cache=scenario.folder / "whole", progress=whole)
    with pytest.raises(KeyboardInterrupt):
        correction_of(subject, scenario, settings=settings, progress=resumed)
    second = correction_of(subject, scenario, settings=settings, progress=Recorder())
    assert same(weights(second.model), weights(first.model))
    assert whole.done == whole.total == STEPS, "epochs that had to be run again are counted once"
    chosen = first.chosen.lambda_
    assert whole.sentences == [
        f"finetuning with lambda {lambda_:g} and defuse_correct(rates=0.01) restarts from step 0: a collections.deque "
        "in its state cannot be stored"
        for lambda_ in (chosen, 0)
    ]


def test_code_in_a_state_that_an_earlier_version_left_is_not_run(
    subject: Subject, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scenario.folder.parent)
    whole = correction_of(subject, scenario, settings=SETTINGS)
    for file in list(whole.folder.glob("lambda*")):
        for suffix in (file.suffix, ".pt"):
            torch.save(Trap(), file.with_suffix(suffix))
    again = correction_of(subject, scenario, settings=SETTINGS)
    assert same(weights(again.model), weights(whole.model))
    assert not Path("sprung").exists()


def test_a_damaged_state_counts_as_none(subject: Subject, scenario: Scenario, whole: Correction) -> None:
    damaged = correction_of(subject, scenario, settings=SETTINGS)
    for file in damaged.folder.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    again = correction_of(subject, scenario, settings=SETTINGS)
    assert same(weights(again.model), weights(whole.model))


def test_another_model_seed_or_setting_does_not_resume_this_one(subject: Subject, scenario: Scenario) -> None:
    first = correction_of(subject, scenario, settings=SETTINGS)
    other = replace(subject, model=copy.deepcopy(subject.model))
    other.model.head.bias.data += 0.5
    assert correction_of(other, scenario, settings=SETTINGS).folder != first.folder
    assert correction_of(subject, scenario, settings=SETTINGS, seed=1).folder != first.folder
    assert correction_of(subject, scenario, settings=SETTINGS.replace(batch=16)).folder != first.folder


def test_another_forward_or_normalize_with_the_same_weights_does_not_resume_this_one(
    subject: Subject, scenario: Scenario
) -> None:
    first = correction_of(subject, scenario, settings=SETTINGS)
    progress = Recorder()
    other = replace(subject, model=copy.deepcopy(subject.model))
    other.model.register_forward_hook(lambda module, inputs, logits: -logits)
    assert correction_of(other, scenario, settings=SETTINGS, progress=progress).folder != first.folder
    assert progress.sentences == [
        f"the work in {first.folder} is not continued: it depends on the model, which has the same weights but now "
        "gives other outputs for the same images"
    ]
    other = replace(subject, normalize=lambda x: x - 0.1)
    assert correction_of(other, scenario, settings=SETTINGS).folder != first.folder
    assert correction_of(subject, scenario, settings=SETTINGS).folder == first.folder


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_the_work_of_a_killed_process_is_resumed(
    subject: Subject, scenario: Scenario, whole: Correction, tmp_path: Path
) -> None:
    repository = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path, "22"], cwd=repository, check=False)
    assert killed.returncode == -signal.SIGKILL
    progress = Recorder()
    resumed = correction_of(subject, scenario, settings=SETTINGS, progress=progress)
    assert sum("loss" in note for note in progress.notes) == 3 * 9
    assert same(weights(resumed.model), weights(whole.model))
