"""The search for a correction: which lambda, which learning rate, how far from the old weights."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from pytest_defuse.correct.finetune import Finetuning, plain_copy, trainable_copy
from pytest_defuse.correct.interpolate import interpolated, remeasure_batch_norm
from pytest_defuse.correct.material import Material
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.trials import Scorer, Trial, choose, choose_as_the_papers, promise
from pytest_defuse.runtime.progress import Advance, Progress
from pytest_defuse.subject.classifier import model_input
from pytest_defuse.subject.subject import Subject

Train = Callable[[float, float, int], Trial]
"""Lambda, learning rate and number of epochs -> the trial."""


class Search:
    """Runs trials and remembers them; the last one chosen is the correction.

    Attributes:
        trials: every model that was scored, in the order in which it came.
        images: training and scenario images that went forward and backward, each time counted.
    """

    def __init__(
        self,
        subject: Subject,
        material: Material,
        settings: CorrectionSettings,
        least: Mapping[str, float],
        *,
        seed: int,
        device: torch.device | str,
        folder: Path,
    ) -> None:
        self.subject, self.material, self.settings, self.least = subject, material, settings, least
        self.device = device
        self.finetuning = Finetuning(subject, material, settings, seed=seed, device=device, folder=folder)
        self.scorer = Scorer(subject, material, settings, device)
        self.trials: list[Trial] = []
        self.images = 0

    def run(self, progress: Progress) -> Trial:
        """Search as the settings say; the trial that was chosen."""
        epochs = self.settings.epochs
        rungs = self._rungs()
        total = sum(rungs) + epochs if self.settings.search == "halving" else (len(self.settings.lambdas) + 1) * epochs
        with progress.task("finetuning", total * self.finetuning.steps) as advance:
            train = partial(self._trained, advance=advance, say=progress.say)
            return self._grid(train) if self.settings.search == "grid" else self._halving(rungs, train)

    def control(self, chosen: Trial) -> Trial:
        """More training alone (lambda = 0): for as long as the chosen one, at its rate, as far from the old weights."""
        plain = next(t for t in reversed(self.trials) if t.weight == 0 and t.rate == chosen.rate and t.alpha == 1)
        return plain if chosen.alpha == 1 else self._scored(replace(plain, alpha=chosen.alpha))

    def model(self, trial: Trial) -> nn.Module:
        """The model of a trial, where the original is, with its modes and flags."""
        end = self.finetuning.weights(trial.weight, trial.rate, trial.epochs)
        if trial.alpha == 1:
            return plain_copy(self.subject.model, end)
        mixed = trainable_copy(self.subject, self.settings)
        mixed.load_state_dict(interpolated(mixed.state_dict(), end, trial.alpha))
        if self.settings.batch_norm == "batch":
            dtype = next(p.dtype for p in mixed.parameters() if p.is_floating_point())
            mixed.to(self.device)
            remeasure_batch_norm(
                mixed,
                self.material.train.pixels,
                lambda pixels: mixed(model_input(pixels.to(self.device), self.subject.normalize).to(dtype)),
            )
        return plain_copy(self.subject.model, mixed.cpu().state_dict())

    def _grid(self, train: Train) -> Trial:
        """Every lambda for all epochs; the best epoch of the best lambda (Defuse, section 3.3)."""
        rate = self.settings.rates[0]
        for weight in (0.0, *self.settings.lambdas):
            for epochs in range(1, self.settings.epochs + 1):
                train(weight, rate, epochs)
        return choose_as_the_papers([trial for trial in self.trials if trial.weight], self.least)

    def _halving(self, rungs: list[int], train: Train) -> Trial:
        """One more epoch for the most promising third, until one has run them all (Jamieson and Talwalkar 2016).

        Then the control at its rate, and the way from the old weights to it.
        """
        alive = [(weight, rate) for weight in self.settings.lambdas for rate in self.settings.rates]
        for epochs, count in enumerate(rungs, start=1):
            rung = [train(*pair, epochs) for pair in alive[:count]]
            rung.sort(key=lambda trial: promise(trial, self.least, self.settings.aim), reverse=True)
            alive = [(trial.weight, trial.rate) for trial in rung]
        winner = rung[0]
        for epochs in range(1, winner.epochs + 1):
            control = train(0.0, winner.rate, epochs)
        mixed = [self._scored(replace(winner, alpha=alpha)) for alpha in self.settings.alphas if alpha < 1]
        return choose([control, *sorted(mixed, key=lambda trial: trial.alpha), winner], self.least, self.settings.aim)

    def _rungs(self) -> list[int]:
        """How many trials run the first, second, ... epoch."""
        counts = [len(self.settings.lambdas) * len(self.settings.rates)]
        while len(counts) < self.settings.epochs:
            counts.append(-(-counts[-1] // 3))
        return counts

    def _trained(
        self, weight: float, rate: float, epochs: int, *, advance: Advance, say: Callable[[str], None]
    ) -> Trial:
        """The trial after some epochs, trained now if it was not before."""
        state = self.finetuning.weights(weight, rate, epochs, advance, say)
        scenario_images = self.finetuning.steps * self.settings.scenario_batch if weight else 0
        self.images += len(self.material.train) + scenario_images
        trial = self.scorer.trial(plain_copy(self.subject.model, state), weight, rate, epochs)
        self.trials.append(trial)
        return trial

    def _scored(self, trial: Trial) -> Trial:
        mixed = self.scorer.trial(self.model(trial), trial.weight, trial.rate, trial.epochs, trial.alpha)
        self.trials.append(mixed)
        return mixed
