"""The gate: a model held against accepted scenarios and the test set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pytest_defuse.gate.baseline import Baseline, SubjectBaseline
from pytest_defuse.gate.checks import (
    DEFAULT_CONFIDENCE,
    Answers,
    Comparison,
    Verdict,
    adjust,
    compare,
    judge,
    settle,
)
from pytest_defuse.gate.predictions import Predictions, predict_scenarios
from pytest_defuse.gate.sentences import sentence
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.statistics.accuracy import Accuracy
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

Asked = tuple[Scenario, Bounds]
"""A scenario, and what a test asks of it."""


@dataclass(frozen=True, eq=False, repr=False)
class GatedScenario:
    """An accepted scenario as a test sees it.

    Attributes:
        scenario: as it is stored.
        label: the class that it shows.
        answers: what the model under test says of the held-out tiles, which correction never sees.
        said: the same with the model's confidences and the tiles' hash.
        accuracy: how many are the label.
        verdict: against the bounds of the test.
        comparison: with the baseline, where it has this scenario.
    """

    scenario: Scenario
    label: str
    answers: Answers
    said: Predictions
    accuracy: Accuracy
    verdict: Verdict
    comparison: Comparison | None

    def __repr__(self) -> str:
        return f"<scenario {self.id}: {self.accuracy}>"

    @property
    def id(self) -> str:
        """The scenario's id."""
        return self.scenario.id

    @property
    def file(self) -> Path:
        """The scenario.yaml."""
        return self.scenario.yaml

    @cached_property
    def images(self) -> Tensor:
        """The held-out tiles, uint8 N x C x H x W."""
        return torch.from_numpy(self.scenario.pixels("held_out"))

    @property
    def predictions(self) -> tuple[str, ...]:
        """Class names, one an image, of the model under test."""
        return tuple(self.answers.predicted)

    def check(self) -> None:
        """Fail the test when a bound fails, saying what the model took the images for.

        Raises:
            AssertionError: a bound fails.
        """
        __tracebackhide__ = True
        if self.verdict.outcome == "fails":
            raise AssertionError(self.sentence)

    @property
    def sentence(self) -> str:
        """Accuracy, interval, bounds and what the images were taken for, in one sentence."""
        name = f"scenario {self.id} (label {self.label!r})"
        return sentence(name, self.answers, self.accuracy, self.verdict, self.comparison)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GatedSet(Accuracy):
    """A test set, or all scenarios together, as a test sees it: an accuracy that can also be held against bounds.

    Attributes:
        name: what the images are, in words.
        answers: what the model under test says of them.
        verdict: against the bounds that were asked for; without checks where there was none.
        comparison: with the baseline, where it has seen the images.
    """

    name: str
    answers: Answers
    verdict: Verdict
    comparison: Comparison | None

    def check(self) -> None:
        """Fail the test when a bound fails; where none was asked for, when there is a regression.

        Raises:
            AssertionError: a bound fails.
        """
        __tracebackhide__ = True
        verdict = self.verdict if self.verdict.checks else settle([judge(self.answers, Bounds())])[0]
        if verdict.outcome == "fails":
            raise AssertionError(self._sentence(verdict))

    @property
    def sentence(self) -> str:
        """Accuracy, interval, bounds and what the images were taken for, in one sentence."""
        return self._sentence(self.verdict)

    def _sentence(self, verdict: Verdict) -> str:
        accuracy = Accuracy(self.correct, self.total, self.confidence)
        return sentence(self.name, self.answers, accuracy, verdict, self.comparison)


def answers_to(
    scenario: Scenario, said: Predictions | DefuseError, model: Classifier, baseline: SubjectBaseline | None = None
) -> Answers | DefuseError:
    """What a model said of a scenario beside its label and its past; an error stays one.

    Returns:
        An error too where the baseline is about other pictures.
    """
    if isinstance(said, DefuseError):
        return said
    label, count = str(scenario.record.label), len(said.predicted)
    try:
        before = baseline.of_scenario(scenario.id, said.images, count) if baseline else [None] * count
    except DefuseError as error:
        return error
    counts = scenario.counts("held_out")
    same_model = baseline is not None and baseline.model == model.hash
    recorded = counts.get(label, 0) / sum(counts.values()) if counts else None
    return Answers([label] * count, said.predicted, before, same_model, recorded, scenario.record.base_error_rate)


def gate_scenarios(
    asked: Sequence[Asked],
    predictions: Mapping[str, Predictions | DefuseError],
    model: Classifier,
    baseline: SubjectBaseline | None = None,
) -> dict[tuple[str, Bounds], GatedScenario | DefuseError]:
    """Hold what a model says of scenarios against what is asked of them, all judged at once.

    Args:
        predictions: by scenario id.

    Returns:
        By scenario id and bounds; an error where the pictures do not fit, or are not the baseline's.
    """
    scenarios = {scenario.id: scenario for scenario, _ in asked}
    given = {name: answers_to(scenarios[name], predictions[name], model, baseline) for name in scenarios}
    answers = {name: answer for name, answer in given.items() if isinstance(answer, Answers)}
    comparisons = dict(zip(answers, adjust([compare(answer) for answer in answers.values()]), strict=True))
    judged = [(scenario.id, bounds) for scenario, bounds in asked if scenario.id in answers]
    verdicts = settle([judge(answers[name], bounds) for name, bounds in judged])
    gated: dict[tuple[str, Bounds], GatedScenario | DefuseError] = {}
    for scenario, bounds in asked:
        if isinstance(error := given[scenario.id], DefuseError):
            gated[scenario.id, bounds] = error
    for (name, bounds), verdict in zip(judged, verdicts, strict=True):
        answer, said = answers[name], predictions[name]
        assert isinstance(said, Predictions), "there are no answers without them"
        gated[name, bounds] = GatedScenario(
            scenario=scenarios[name],
            label=answer.labels[0],
            answers=answer,
            said=said,
            accuracy=Accuracy(answer.correct, len(answer.labels), bounds.confidence or DEFAULT_CONFIDENCE),
            verdict=verdict,
            comparison=comparisons[name],
        )
    return gated


def gate_scenario(
    scenario: Scenario, subject: Subject, model: Classifier, bounds: Bounds, baseline: Baseline | None = None
) -> GatedScenario:
    """Run the model on the held-out tiles of one accepted scenario and judge it alone.

    Raises:
        DefuseError: the scenario's label is no class of the subject, its pictures do not fit, or the
            baseline is about other pictures.
    """
    predictions = predict_scenarios(subject, model, [scenario])
    part = baseline.of(subject.name) if baseline else None
    [gated] = gate_scenarios([(scenario, bounds)], predictions, model, part).values()
    if isinstance(gated, DefuseError):
        raise gated
    return gated


def gate_together(name: str, answers: Sequence[Answers], bounds: Bounds | None) -> GatedSet:
    """Hold all scenarios together against bounds, if any: what is asked of them one by one plays no part."""
    total = sum(len(part.labels) for part in answers)
    recorded = sum((part.recorded or 0.0) * len(part.labels) for part in answers)
    together = Answers(
        [label for part in answers for label in part.labels],
        [predicted for part in answers for predicted in part.predicted],
        [before for part in answers for before in part.before],
        all(part.same_model for part in answers),
        recorded / total if total else None,
    )
    return _gated_set(name, together, bounds)


def gate_test(
    subject: Subject,
    model: Classifier,
    predictions: Predictions,
    bounds: Bounds | None,
    baseline: SubjectBaseline | None = None,
) -> GatedSet:
    """Hold what a model says of the test set against bounds, if any.

    Raises:
        DefuseError: the baseline is about another test set.
    """
    labels = [subject.classes[index] for index in subject.test_images.labels.tolist()]
    before = baseline.of_test(predictions.images, len(labels)) if baseline else [None] * len(labels)
    same_model = baseline is not None and baseline.model == model.hash
    answers = Answers(labels, predictions.predicted, before, same_model)
    return _gated_set(f"test set of {subject.name}", answers, bounds)


def measured(predictions: Tensor, labels: Tensor) -> Accuracy:
    """The accuracy of predicted class indices, int64 N, against labels, int64 N."""
    return Accuracy(int(torch.eq(predictions, labels).sum()), len(labels))


def _gated_set(name: str, answers: Answers, bounds: Bounds | None) -> GatedSet:
    return GatedSet(
        answers.correct,
        len(answers.labels),
        (bounds and bounds.confidence) or DEFAULT_CONFIDENCE,
        name=name,
        answers=answers,
        verdict=settle([judge(answers, bounds)])[0] if bounds else Verdict(()),
        comparison=compare(answers),
    )
