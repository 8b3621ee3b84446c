"""Interrupted work goes on from its last epoch and ends with the same bits."""

import copy
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.subject import Subject
from tests.correct.sides import BRIEF, Watched, correction_of, same, untouched, weights

SETTINGS = BRIEF.replace(weights=(0.1, 0.5), epochs=2, alphas=(0.5, 1.0), augment="mild")
STEPS = (2 + 1 + 2) * 9

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.correct.sides import SIDES, Watched, correction_of, sides, trained_net
from tests.correct.test_resume import SETTINGS
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject

net = trained_net()
net.scale.requires_grad_(False)
subject = Subject(name="sides", model=net, classes=SIDES, train=sides(300, seed=0), test=sides(50, seed=1))

def die(done):
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

scenarios = Store(Path(sys.argv[1]) / "sides").scenarios("accepted")
correction_of(subject, *scenarios, settings=SETTINGS, progress=Watched(die))
"""


def interrupted(subject: Subject, scenario: Scenario, step: int) -> None:
    def interrupt(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    with untouched(subject), pytest.raises(KeyboardInterrupt):
        correction_of(subject, scenario, settings=SETTINGS, progress=Watched(interrupt))


@pytest.mark.parametrize("step", [5, 9, 14, 30, STEPS])
def test_an_interrupted_correction_ends_with_the_same_bits(subject: Subject, scenario: Scenario, step: int) -> None:
    whole = correction_of(subject, scenario, settings=SETTINGS, cache=scenario.folder / "whole")
    interrupted(subject, scenario, step)
    resumed = correction_of(subject, scenario, settings=SETTINGS)
    assert same(weights(resumed.model), weights(whole.model))
    assert same(weights(resumed.control_model), weights(whole.control_model))
    assert [trial.health for trial in resumed.trials] == [trial.health for trial in whole.trials]


def test_epochs_that_were_run_are_not_run_again(subject: Subject, scenario: Scenario) -> None:
    interrupted(subject, scenario, 30)  # in the fourth epoch of five
    progress = Watched()
    correction_of(subject, scenario, settings=SETTINGS, progress=progress)
    assert progress.done == progress.total == STEPS
    assert sum("loss" in note for note in progress.notes) == 2 * 9


def test_a_damaged_state_counts_as_none(subject: Subject, scenario: Scenario) -> None:
    whole = correction_of(subject, scenario, settings=SETTINGS, cache=scenario.folder / "whole")
    damaged = correction_of(subject, scenario, settings=SETTINGS)
    for file in damaged.folder.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    again = correction_of(subject, scenario, settings=SETTINGS)
    assert same(weights(again.model), weights(whole.model))


def test_another_model_does_not_take_up_this_ones_work(subject: Subject, scenario: Scenario) -> None:
    first = correction_of(subject, scenario, settings=SETTINGS)
    other = replace(subject, model=copy.deepcopy(subject.model))
    other.model.head.bias.data += 0.5
    assert correction_of(other, scenario, settings=SETTINGS).folder != first.folder
    assert correction_of(subject, scenario, settings=SETTINGS, seed=1).folder != first.folder
    assert correction_of(subject, scenario, settings=SETTINGS.replace(batch=16)).folder != first.folder


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_process_is_taken_up_by_the_next(subject: Subject, scenario: Scenario, tmp_path: Path) -> None:
    whole = correction_of(subject, scenario, settings=SETTINGS, cache=tmp_path / "whole")
    repository = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path, "22"], cwd=repository, check=False)
    assert killed.returncode == -signal.SIGKILL
    progress = Watched()
    resumed = correction_of(subject, scenario, settings=SETTINGS, progress=progress)
    assert sum("loss" in note for note in progress.notes) == 3 * 9
    assert same(weights(resumed.model), weights(whole.model))
