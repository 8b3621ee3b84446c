"""Trials: finetuned models as they score on validation images and correction tiles, and the choice among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pytest_defuse.correct.harm import Comparison, excesses
from pytest_defuse.correct.material import Material
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.gate.gate import measured
from pytest_defuse.statistics.accuracy import Accuracy
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject


@dataclass(frozen=True, eq=False)
class Trial:
    """One model, as selection sees it.

    Attributes:
        weight, rate, epochs: its lambda, learning rate and epochs of finetuning.
        alpha: how far it lies from the old weights (0) to the finetuned ones (1).
        validation: accuracy on validation images.
        shifted: accuracy on their shifted copies, by shift.
        scenarios: accuracy on each scenario's *correction* tiles, by id.
        excesses: bounds on harm that it misses on validation images, in sentences.
    """

    weight: float
    rate: float
    epochs: int
    alpha: float
    validation: Accuracy
    shifted: Mapping[str, Accuracy]
    scenarios: Mapping[str, Accuracy]
    excesses: tuple[str, ...] = ()

    @property
    def health(self) -> float:
        """Mean accuracy on validation images and their shifted copies."""
        scores = [self.validation.value, *(accuracy.value for accuracy in self.shifted.values())]
        return sum(scores) / len(scores)

    def margin(self, least: Mapping[str, float]) -> float:
        """The smallest excess of a scenario's accuracy over its bound; negative when one is missed."""
        return min(accuracy.value - least.get(name, 0.0) for name, accuracy in self.scenarios.items())

    def shortfall(self, least: Mapping[str, float], aim: float) -> float:
        """What scenarios lack on average of ``aim``, or of their bound where that asks for more."""
        gaps = [max(0.0, max(aim, least.get(name, 0.0)) - a.value) for name, a in self.scenarios.items()]
        return sum(gaps) / len(gaps)


class Scorer:
    """Scores models on validation images, their shifted copies and correction tiles."""

    def __init__(
        self, subject: Subject, material: Material, settings: CorrectionSettings, device: torch.device | str
    ) -> None:
        self.subject, self.material, self.settings, self.device = subject, material, settings, device
        self.before = {name: self._predictions(subject.model, part) for name, part in self._watched.items()}

    @property
    def _watched(self) -> dict[str, LabelledImages]:
        return {"validation set": self.material.validation, **self.material.shifted}

    def trial(self, model: nn.Module, weight: float, rate: float, epochs: int, alpha: float = 1.0) -> Trial:
        """A model with its scores."""
        compared = {
            name: Comparison(part.labels, self.before[name], self._predictions(model, part))
            for name, part in self._watched.items()
        }
        accuracies = {name: measured(part.after, part.labels) for name, part in compared.items()}
        validation = compared.pop("validation set")
        return Trial(
            weight,
            rate,
            epochs,
            alpha,
            accuracies.pop("validation set"),
            accuracies,
            {
                name: measured(self._predictions(model, tiles), tiles.labels)
                for name, tiles in self.material.tiles.items()
            },
            tuple(excesses(validation, compared, self.settings, self.subject.classes, "validation set")),
        )

    def _predictions(self, model: nn.Module, images: LabelledImages) -> Tensor:
        classifier = self.subject.classifier(self.device, model)
        return torch.cat([classifier.predict(some) for some in images.pixels.split(self.settings.at_once)])


ON_COURSE = 0.05
"""A trial on its way that lacks no more than this of the aim, on average, is expected to get there."""


def promise(trial: Trial, least: Mapping[str, float], aim: float) -> tuple[bool, bool, float, float]:
    """What successive halving keeps trials by: the mildest of those that are on course to mend without harm.

    What a larger lambda costs is smaller than what validation images can tell, and grows with lambda all the same: so
    among those on course lambda decides, and only then their health. Among the others, what they lack.
    """
    shortfall = trial.shortfall(least, aim)
    on_course = shortfall <= ON_COURSE
    return not trial.excesses, on_course, -trial.weight if on_course else -shortfall, trial.health - shortfall


def choose(trials: Sequence[Trial], least: Mapping[str, float], aim: float) -> Trial:
    """The mildest trial that mends: at a tie the one that comes first.

    First those that meet every bound, on scenarios and on harm; among them those on which no scenario
    falls short of ``aim``; among them the best on validation images and their shifted copies. While none
    mends, what is lacking counts against that.
    """

    def merit(trial: Trial) -> tuple[bool, bool, float]:
        shortfall = trial.shortfall(least, aim)
        return trial.margin(least) >= 0 and not trial.excesses, shortfall == 0, trial.health - shortfall

    return max(trials, key=merit)


def choose_as_the_papers(trials: Sequence[Trial], least: Mapping[str, float]) -> Trial:
    """The best validation accuracy among trials that meet every scenario's bound, the earlier one at a tie; if
    none does, the one that misses by least."""
    meeting = [trial for trial in trials if trial.margin(least) >= 0]
    if meeting:
        return max(meeting, key=lambda trial: trial.validation.value)
    return max(trials, key=lambda trial: trial.margin(least))
