"""The gate: a model's predictions evaluated against the bounds on accepted scenarios and on the test set."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from pytest_defuse.gate.baseline import NO_BASELINE, SubjectBaseline
from pytest_defuse.gate.checks import Check, compare, evaluate
from pytest_defuse.gate.predictions import COLUMNS, LabelledPredictions, Predictions
from pytest_defuse.gate.results import FLIPS_PER_SET, OverallResult, ScenarioResult, TestSetResult
from pytest_defuse.gate.sentences import sentence
from pytest_defuse.runtime.errors import DefuseError, InconclusiveError
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.sheets import encode_sheet
from pytest_defuse.statistics.accuracy import DEFAULT_CONFIDENCE, Accuracy
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

Request = tuple[Scenario, Bounds]
"""A scenario and the bounds that a test sets for it."""
PredictionsById = Mapping[str, Predictions | DefuseError]
"""Predictions by scenario id; an error for a scenario that does not fit the subject."""


class Gated:
    """What a fixture returns: a verdict, which :meth:`check` turns into the test's outcome.

    Attributes:
        first_run: as in :func:`~pytest_defuse.gate.checks.evaluate`.
    """

    verdict: ScenarioResult | TestSetResult | OverallResult
    first_run: bool

    @property
    def sentence(self) -> str:
        """Accuracy, interval, bounds and most frequent errors, in one sentence."""
        return sentence(self.verdict)

    def check(self) -> None:
        """Fail the test if a bound fails, or if accuracy regressed when the test sets no bounds.

        Raises:
            AssertionError: a bound fails; the message is the sentence about the verdict.
            InconclusiveError: no bound fails, and one is INCONCLUSIVE.
            DefuseError: the test sets no bounds, and there is nothing to compare with.
        """
        __tracebackhide__ = True
        verdict = self.verdict
        if not verdict.checks:
            verdict = replace(verdict, checks=evaluate(verdict.predictions, Bounds(), self.first_run))
        if verdict.outcome == "FAIL":
            raise AssertionError(sentence(verdict))
        if verdict.outcome == "INCONCLUSIVE":
            raise InconclusiveError(sentence(verdict))


@dataclass(frozen=True, eq=False, repr=False)
class GatedScenario(Gated):
    """What the fixture ``defuse_scenario`` returns: an accepted scenario and the verdict on its held-out tiles."""

    scenario: Scenario
    verdict: ScenarioResult
    first_run: bool = False

    def __repr__(self) -> str:
        return f"<scenario {self.id}: {self.accuracy}>"

    @property
    def id(self) -> str:
        """The scenario's id."""
        return self.verdict.id

    @property
    def label(self) -> str:
        """The class that the scenario shows."""
        return self.verdict.label

    @property
    def accuracy(self) -> Accuracy:
        """The model's accuracy; compares like a number."""
        return self.verdict.accuracy

    @property
    def predictions(self) -> tuple[str, ...]:
        """The class names that the model predicts, one per image."""
        return self.verdict.predictions.predicted

    @cached_property
    def images(self) -> Tensor:
        """The held-out tiles, uint8 N x C x H x W; a correction never trains on them."""
        return torch.from_numpy(self.scenario.pixels("held_out"))


class GatedAccuracy(Gated, Accuracy):
    """What ``defuse_test_accuracy`` and ``defuse_overall`` return: an accuracy with the verdict that it is part of."""

    verdict: TestSetResult | OverallResult
    first_run: bool = False

    @staticmethod
    def of(verdict: TestSetResult | OverallResult, first_run: bool = False) -> "GatedAccuracy":
        """The accuracy of a verdict."""
        accuracy = GatedAccuracy(verdict.correct, verdict.total, verdict.confidence)
        accuracy.verdict, accuracy.first_run = verdict, first_run
        return accuracy


def gate_scenarios(
    requests: Sequence[Request],
    predictions: PredictionsById,
    model: Classifier,
    baseline: SubjectBaseline = NO_BASELINE,
    uncorrected: PredictionsById | None = None,
) -> dict[tuple[str, Bounds], ScenarioResult | DefuseError]:
    """Evaluate a model's predictions on scenarios, each on its own images alone.

    Args:
        uncorrected: predictions of the original model, in a run that corrects.

    Returns:
        By scenario id and bounds; an error if the scenario does not fit the subject or the baseline, or if there is
        nothing to compare with.
    """
    results: dict[tuple[str, Bounds], ScenarioResult | DefuseError] = {}
    for scenario, bounds in requests:
        try:
            labelled = _labelled(scenario, predictions, model, baseline)
            checks = _checked(labelled, bounds, baseline, f"{scenario.yaml}: ")
        except DefuseError as error:
            results[scenario.id, bounds] = error
            continue
        results[scenario.id, bounds] = ScenarioResult(
            subject=scenario.subject,
            model=model.fingerprint,
            predictions=labelled,
            confidence=bounds.confidence or DEFAULT_CONFIDENCE,
            checks=checks,
            comparison=compare(labelled),
            correct_before=None if uncorrected is None else _labelled(scenario, uncorrected, model).correct,
            id=scenario.id,
            label=scenario.record.label or str(scenario.record.labels),
            folder=str(scenario.folder),
            tiles=tuple(scenario.record.sheets.held_out.kept),
            sheet_tiles=scenario.record.sheets.held_out.images,
            gap=scenario.record.gap,
        )
    return results


def gate_together(
    scenarios: Sequence[Scenario],
    predictions: PredictionsById,
    model: Classifier,
    bounds: Bounds | None,
    baseline: SubjectBaseline = NO_BASELINE,
    uncorrected: PredictionsById | None = None,
) -> OverallResult:
    """Evaluate bounds, if any, on all tiles of one subject's scenarios together.

    Raises:
        DefuseError: a scenario does not fit the subject or the baseline, or a bound cannot be evaluated.
    """
    parts = [_labelled(scenario, predictions, model, baseline) for scenario in scenarios]
    total = sum(part.total for part in parts)
    recorded = [part.recorded * part.total for part in parts if part.recorded is not None]
    columns: dict[str, Any] = {name: tuple(chain(*(getattr(part, name) for part in parts))) for name in COLUMNS}
    together = LabelledPredictions(
        sha256="",
        **columns,
        same_model=baseline.same_model(model),
        not_in_baseline=all(part.not_in_baseline for part in parts),
        recorded=sum(recorded) / total if total and len(recorded) == len(parts) else None,
    )
    before = sum(_labelled(scenario, uncorrected, model).correct for scenario in scenarios) if uncorrected else None
    return OverallResult(
        subject=scenarios[0].subject,
        model=model.fingerprint,
        predictions=together,
        confidence=(bounds and bounds.confidence) or DEFAULT_CONFIDENCE,
        checks=_checked(together, _of_any_images(bounds), baseline),
        comparison=compare(together),
        correct_before=before,
        scenarios=tuple(scenario.id for scenario in scenarios),
    )


def gate_test(
    subject: Subject,
    model: Classifier,
    predictions: Predictions,
    bounds: Bounds | None,
    baseline: SubjectBaseline = NO_BASELINE,
    uncorrected: Predictions | None = None,
) -> TestSetResult:
    """Evaluate bounds, if any, on a model's predictions on the test set.

    Raises:
        DefuseError: the baseline is from another test set, or a bound cannot be evaluated.
    """
    images = subject.test_images
    labels = tuple(subject.classes[index] for index in images.labels.tolist())
    labelled = LabelledPredictions(
        **vars(predictions),
        labels=labels,
        baseline=baseline.of_test(predictions.sha256, len(labels)),
        same_model=baseline.same_model(model),
    )
    comparison = compare(labelled)
    lost = comparison.lost[:FLIPS_PER_SET] if comparison else []
    return TestSetResult(
        subject=subject.name,
        model=model.fingerprint,
        predictions=labelled,
        confidence=(bounds and bounds.confidence) or DEFAULT_CONFIDENCE,
        checks=_checked(labelled, _of_any_images(bounds), baseline, classes=subject.classes),
        comparison=comparison,
        correct_before=sum(map(str.__eq__, labels, uncorrected.predicted)) if uncorrected else None,
        flip_sheet=b64encode(encode_sheet(images.pixels[lost].numpy())).decode() if lost else "",
    )


def _of_any_images(bounds: Bounds | None) -> Bounds | None:
    """The bounds of a test set or of several scenarios, which are no failure mode."""
    if bounds and bounds.max_increase is not None:
        raise DefuseError("max_increase is only for scenarios of failure modes: set min_accuracy or max_error_rate.")
    return bounds


def _checked(
    predictions: LabelledPredictions,
    bounds: Bounds | None,
    baseline: SubjectBaseline,
    where: str = "",
    classes: Sequence[str] = (),
) -> tuple[Check, ...]:
    try:
        return evaluate(predictions, bounds, baseline.first_run, classes) if bounds else ()
    except DefuseError as error:
        raise DefuseError(f"{where}{error}") from None


def _labelled(
    scenario: Scenario, predictions: PredictionsById, model: Classifier, baseline: SubjectBaseline = NO_BASELINE
) -> LabelledPredictions:
    """A scenario's predictions with its labels and earlier results; raises the DefuseError that replaces them."""
    own = predictions[scenario.id]
    if isinstance(own, DefuseError):
        raise own
    return LabelledPredictions(
        **vars(own),
        labels=tuple(scenario.labels("held_out")),
        baseline=baseline.of_scenario(scenario.id, own.sha256, len(own.predicted)),
        same_model=baseline.same_model(model),
        not_in_baseline=baseline.contains_sets and scenario.id not in baseline.scenarios,
        recorded=scenario.recorded_accuracy("held_out"),
        base_error_rate=scenario.record.base_error_rate,
    )
