"""Trials: finetuned models with their accuracies on validation images and correction tiles; the choice of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_defuse.statistics.accuracy import Accuracy


@dataclass(frozen=True, eq=False)
class Trial:
    """A finetuned model with the accuracies that the choice depends on.

    Attributes:
        alpha: its position between the old weights (0) and the finetuned ones (1).
        shifted: accuracy on shifted copies of the validation images, by the name of the shift.
        scenarios: accuracy on the *correction* tiles of each scenario, by id.
        violations: bounds on harm that fail on validation images, in sentences.
    """

    lambda_: float
    learning_rate: float
    epochs: int
    alpha: float
    validation: Accuracy
    shifted: Mapping[str, Accuracy]
    scenarios: Mapping[str, Accuracy]
    violations: tuple[str, ...] = ()

    @property
    def mean_accuracy(self) -> float:
        """The mean of the accuracies on validation images and on each of their shifted copies."""
        accuracies = [self.validation.value, *(accuracy.value for accuracy in self.shifted.values())]
        return sum(accuracies) / len(accuracies)

    def bound_margin(self, minimum: Mapping[str, float]) -> float:
        """The smallest difference between a scenario's accuracy and its bound; negative if a bound fails."""
        return min(accuracy.value - minimum.get(name, 0.0) for name, accuracy in self.scenarios.items())

    def shortfall(self, minimum: Mapping[str, float], aim: float) -> float:
        """How far scenarios are below ``aim``, or below their bound if that is higher, on average."""
        gaps = [max(0.0, max(aim, minimum.get(name, 0.0)) - a.value) for name, a in self.scenarios.items()]
        return sum(gaps) / len(gaps)


MAX_SHORTFALL = 0.05
"""A trial that is below the aim by at most this, on average, is expected to reach it. Our choice."""


def ranking_key(trial: Trial, minimum: Mapping[str, float], aim: float) -> tuple[bool, bool, float, float]:
    """The key by which successive halving ranks trials: the smallest lambda that is likely to fix the scenarios.

    A larger lambda costs accuracy, but less than validation images can show. So among trials that are likely to reach
    the aim, lambda decides first, then the mean accuracy. Among the others, the shortfall decides.
    """
    shortfall = trial.shortfall(minimum, aim)
    likely = shortfall <= MAX_SHORTFALL
    return not trial.violations, likely, -trial.lambda_ if likely else -shortfall, trial.mean_accuracy - shortfall


def choose(trials: Sequence[Trial], minimum: Mapping[str, float], aim: float) -> Trial:
    """The trial with the highest mean accuracy of those that pass every bound and reach the aim; the first at a tie.

    Trials that pass every bound, on scenarios and on harm, come before others; the shortfall reduces the mean accuracy.
    """

    def key(trial: Trial) -> tuple[bool, bool, float]:
        shortfall = trial.shortfall(minimum, aim)
        passes = trial.bound_margin(minimum) >= 0 and not trial.violations
        return passes, shortfall == 0, trial.mean_accuracy - shortfall

    return max(trials, key=key)


def choose_like_the_papers(trials: Sequence[Trial], minimum: Mapping[str, float]) -> Trial:
    """The highest validation accuracy among trials that pass every scenario's bound, else the largest margin."""
    passing = [trial for trial in trials if trial.bound_margin(minimum) >= 0]
    if passing:
        return max(passing, key=lambda trial: trial.validation.value)
    return max(trials, key=lambda trial: trial.bound_margin(minimum))
