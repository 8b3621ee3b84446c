"""The search for a correction: over lambda, learning rate, and the distance from the old weights."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from pytest_defuse.correct.finetune import Finetuning, plain_copy, trainable_copy
from pytest_defuse.correct.harm import PairedPredictions, violations
from pytest_defuse.correct.interpolate import interpolated, recompute_batch_norm
from pytest_defuse.correct.trials import Trial, choose, choose_like_the_papers, ranking_key
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.statistics.accuracy import accuracy_of
from pytest_defuse.subject.images import LabelledImages

Train = Callable[[float, float, int], Trial]
"""Lambda, learning rate and number of epochs -> the trial."""


class Search:
    """Trains trials, evaluates them, and chooses one; ``trials`` are in the order in which they were evaluated."""

    def __init__(self, finetuning: Finetuning, minimum: Mapping[str, float]) -> None:
        self.finetuning, self.minimum = finetuning, minimum
        self.subject, self.data, self.settings = finetuning.subject, finetuning.data, finetuning.settings
        self.image_passes = self.forward_passes = 0
        self.sets = {"validation set": self.data.validation, **self.data.shifted}
        self.original_predictions = {
            name: self._predictions(self.subject.model, part) for name, part in self.sets.items()
        }
        self.trials: list[Trial] = []

    def run(self, progress: Progress) -> Trial:
        """Train the trials of the settings' search; returns the chosen one."""
        settings, epochs = self.settings, self.settings.epochs
        # The number of trials in each epoch of successive halving.
        rungs = [-(-len(settings.lambdas) * len(settings.rates) // 3**epoch) for epoch in range(epochs)]
        total = sum(rungs) + epochs if settings.search == "halving" else (len(settings.lambdas) + 1) * epochs
        with progress.task("finetuning", total * self.finetuning.steps) as advance:

            def train(lambda_: float, learning_rate: float, epochs: int) -> Trial:
                state = self.finetuning.weights(lambda_, learning_rate, epochs, advance, progress.say)
                scenario_images = self.finetuning.steps * settings.scenario_batch if lambda_ else 0
                self.image_passes += len(self.data.train) + scenario_images
                self.forward_passes += len(self.data.train) if settings.distill else 0
                self.trials.append(self.scored(plain_copy(self.subject.model, state), lambda_, learning_rate, epochs))
                return self.trials[-1]

            return self._grid(train) if settings.search == "grid" else self._halving(rungs, train)

    def control(self, chosen: Trial) -> Trial:
        """The trial without scenarios (lambda = 0), with the learning rate, epochs and alpha of the chosen one."""
        plain = next(
            trial
            for trial in reversed(self.trials)
            if (trial.lambda_, trial.learning_rate, trial.epochs, trial.alpha)
            == (0, chosen.learning_rate, chosen.epochs, 1)
        )
        return plain if chosen.alpha == 1 else self._interpolated(plain, chosen.alpha)

    def model(self, trial: Trial) -> nn.Module:
        """The model of a trial, on the device of the original, with its modes and flags."""
        end = self.finetuning.weights(trial.lambda_, trial.learning_rate, trial.epochs)
        if trial.alpha == 1:
            return plain_copy(self.subject.model, end)
        mixed = trainable_copy(self.subject, self.settings)
        mixed.load_state_dict(interpolated(mixed.state_dict(), end, trial.alpha))
        if self.settings.batch_norm == "batch":
            logits = partial(self.finetuning.logits, mixed.to(self.finetuning.device))
            self.forward_passes += recompute_batch_norm(
                mixed,
                self.data.train.pixels,
                lambda pixels: logits(pixels.to(self.finetuning.device).float() / 255),
                seed=self.finetuning.seed,
            )
        return plain_copy(self.subject.model, mixed.cpu().state_dict())

    def _grid(self, train: Train) -> Trial:
        """Every lambda for all epochs; the best epoch of the best lambda (Defuse, section 3.3)."""
        learning_rate = self.settings.rates[0]
        for lambda_ in (0.0, *self.settings.lambdas):
            for epochs in range(1, self.settings.epochs + 1):
                train(lambda_, learning_rate, epochs)
        return choose_like_the_papers([trial for trial in self.trials if trial.lambda_], self.minimum)

    def _halving(self, rungs: list[int], train: Train) -> Trial:
        """Train the best third for one more epoch, until one trial has run all epochs (Jamieson and Talwalkar 2016).

        Then train the control with its learning rate, and interpolate between the old weights and the winner's.
        """
        pairs = [(lambda_, rate) for lambda_ in self.settings.lambdas for rate in self.settings.rates]
        for epochs, count in enumerate(rungs, start=1):
            rung = [train(*pair, epochs) for pair in pairs[:count]]
            rung.sort(key=lambda trial: ranking_key(trial, self.minimum, self.settings.aim), reverse=True)
            pairs = [(trial.lambda_, trial.learning_rate) for trial in rung]
        winner = rung[0]
        for epochs in range(1, winner.epochs + 1):
            control = train(0.0, winner.learning_rate, epochs)
        between = [self._interpolated(winner, alpha) for alpha in self.settings.alphas if alpha < 1]
        between.sort(key=lambda trial: trial.alpha)
        return choose([control, *between, winner], self.minimum, self.settings.aim)

    def _interpolated(self, trial: Trial, alpha: float) -> Trial:
        """The trial between the old weights (alpha 0) and those of ``trial`` (1)."""
        model = self.model(replace(trial, alpha=alpha))
        self.trials.append(self.scored(model, trial.lambda_, trial.learning_rate, trial.epochs, alpha))
        return self.trials[-1]

    def scored(self, model: nn.Module, lambda_: float, learning_rate: float, epochs: int, alpha: float = 1.0) -> Trial:
        """A model evaluated on validation images, their shifted copies and correction tiles."""
        compared = {
            name: PairedPredictions(part.labels, self.original_predictions[name], self._predictions(model, part))
            for name, part in self.sets.items()
        }
        tiles = {
            name: accuracy_of(self._predictions(model, part).tolist(), part.labels.tolist())
            for name, part in self.data.tiles.items()
        }
        shifted = {name: accuracy_of(part.after.tolist(), part.labels.tolist()) for name, part in compared.items()}
        paired, validation = compared.pop("validation set"), shifted.pop("validation set")
        judgements = violations(paired, compared, self.settings, self.subject.classes, "validation set")
        # What validation images leave open, the audit decides on test images.
        failed = tuple(judgement.sentence for judgement in judgements if judgement.outcome == "FAIL")
        return Trial(lambda_, learning_rate, epochs, alpha, validation, shifted, tiles, failed)

    def _predictions(self, model: nn.Module, images: LabelledImages) -> Tensor:
        self.forward_passes += len(images)
        classifier = self.subject.classifier(self.finetuning.device, model)
        return torch.cat([classifier.predict(part) for part in images.pixels.split(self.settings.at_once)])
