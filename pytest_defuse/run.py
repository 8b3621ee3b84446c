"""One subject in one pytest session: everything is computed when a test first asks for it, once."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from pytest_defuse.classifier import Classifier
from pytest_defuse.correct.checkpoints import corrected_path
from pytest_defuse.correct.finetune import Correction, correct
from pytest_defuse.devices import device_named
from pytest_defuse.discover.discovery import Discovery, discover
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.explain.explanation import Explanation, explain
from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.gate.baseline import Baseline, load_baseline
from pytest_defuse.gate.bounds import Bounds
from pytest_defuse.gate.gate import GatedScenario, gate_scenario, measured, predict_test, shift_accuracies
from pytest_defuse.options import Options
from pytest_defuse.progress import Progress
from pytest_defuse.report.results import (
    CandidateResult,
    DiscoveryResult,
    ExplanationResult,
    ScenarioResult,
    TestSetResult,
)
from pytest_defuse.report.trees import explanation_result
from pytest_defuse.scenarios.candidates import store_candidates
from pytest_defuse.scenarios.sheets import pixel_hash
from pytest_defuse.scenarios.slices import store_failure_modes
from pytest_defuse.scenarios.store import Scenario, Store
from pytest_defuse.subject import Subject


class SubjectRun:
    """Carries a subject through the verbs, and says what came out as results.

    Args:
        bounds: those of every scenario that a collected test gates, by id; correction aims at them.
    """

    def __init__(self, subject: Subject, options: Options, bounds: Mapping[str, Bounds], progress: Progress) -> None:
        self.subject = subject
        self.options = options
        self.bounds = bounds
        self.progress = progress
        self.store = Store(options.store / subject.name)
        self.correction_seconds = 0.0
        self._discoveries: dict[DiscoverySettings, tuple[Discovery, DiscoveryResult]] = {}
        self._explanations: dict[ExplainSettings, tuple[Explanation, ExplanationResult]] = {}

    @cached_property
    def device(self) -> torch.device:
        """Where models compute."""
        return device_named(self.options.device)

    @cached_property
    def original(self) -> Classifier:
        """The model under test."""
        return self.subject.classifier(self.device)

    @cached_property
    def correction(self) -> Correction | None:
        """The finetuned models, in a session that corrects; written when every test has judged them."""
        if not self.options.correct:
            return None
        corrected_path(self.subject.checkpoint)  # a subject without a checkpoint is refused before the work
        started = time.monotonic()
        correction = correct(
            self.subject,
            self.store.scenarios("accepted"),
            {name: bounds.min_accuracy or 0.0 for name, bounds in self.bounds.items()},
            seed=self.options.seed,
            device=self.device,
            progress=self.progress,
        )
        self.correction_seconds = time.monotonic() - started
        return correction

    @cached_property
    def model(self) -> Classifier:
        """The model that tests judge: the corrected one in a session that corrects, else the original."""
        if self.correction is None:
            return self.original
        return self.subject.classifier(self.device, self.correction.chosen.model)

    @cached_property
    def shifts(self) -> dict[str, tuple[float, float]]:
        """Accuracy of the original and of the judged model on each shift set."""
        return shift_accuracies(self.subject, self.original, self.model)

    @cached_property
    def baseline(self) -> Baseline | None:
        """What an earlier run predicted, if the options name one."""
        return load_baseline(self.options.baseline) if self.options.baseline else None

    def gate(self, scenario: Scenario, bounds: Bounds) -> tuple[GatedScenario, ScenarioResult]:
        """Hold the model against a scenario."""
        gated = gate_scenario(scenario, self.subject, self.model, bounds, self.baseline)
        before = None
        if self.correction is not None:
            before = gate_scenario(scenario, self.subject, self.original, bounds).accuracy.correct
        result = ScenarioResult(
            subject=self.subject.name,
            id=gated.id,
            label=gated.label,
            folder=str(scenario.folder),
            correct=gated.accuracy.correct,
            total=gated.accuracy.total,
            confidence=gated.accuracy.confidence,
            outcome=gated.verdict.outcome,
            bound=gated.verdict.bound,
            reason=gated.verdict.reason,
            predicted=list(gated.predictions),
            images=pixel_hash(gated.images.numpy()),
            model=self.model.hash,
            before=before,
        )
        return gated, result

    @cached_property
    def test_set(self) -> TestSetResult:
        """The model on the test set."""
        labels = self.subject.test_images.labels
        predictions = predict_test(self.subject, self.model)
        before = None
        if self.correction is not None:
            before = measured(predict_test(self.subject, self.original), labels).correct
        accuracy = measured(predictions, labels)
        return TestSetResult(
            subject=self.subject.name,
            correct=accuracy.correct,
            total=accuracy.total,
            predicted=[self.subject.classes[index] for index in predictions.tolist()],
            images=self.subject.test_images.hash,
            model=self.model.hash,
            before=before,
        )

    def discover(self, given: Mapping[str, Any]) -> tuple[Discovery, DiscoveryResult]:
        """Search the original model for failures and write candidates to the store; once for equal settings."""
        settings = DiscoverySettings.of(given)
        if settings not in self._discoveries:
            self._discoveries[settings] = self._discover(settings)
        return self._discoveries[settings]

    def explain(self, given: Mapping[str, Any]) -> tuple[Explanation, ExplanationResult]:
        """Barlow's rules for the model on the test set, candidates too when discovering; once for equal settings."""
        settings = ExplainSettings.of(given)
        if settings not in self._explanations:
            self._explanations[settings] = self._explain(settings)
        return self._explanations[settings]

    def _explain(self, settings: ExplainSettings) -> tuple[Explanation, ExplanationResult]:
        explanation = explain(
            self.subject,
            self.model,
            settings,
            seed=self.options.seed,
            cache=self.options.cache,
            progress=self.progress,
            names=self.store.record().feature_names if self.store.exists() else {},
        )
        # Only the HTML report shows figures.
        result = explanation_result(explanation, figures=self.options.report is not None)
        if self.options.discover:
            stored = store_failure_modes(self.store, explanation, self.options.cache)
            new = [_candidate(scenario) for scenario in stored.new]
            result = replace(result, new=new, known=[scenario.id for scenario in stored.known])
        return explanation, result

    def _discover(self, settings: DiscoverySettings) -> tuple[Discovery, DiscoveryResult]:
        started = time.monotonic()
        discovery = discover(
            self.subject,
            settings,
            seed=self.options.seed,
            device=self.device,
            cache=self.options.cache,
            progress=self.progress,
        )
        stored = store_candidates(self.store, self.subject, discovery)
        return discovery, DiscoveryResult(
            subject=self.subject.name,
            accuracy=discovery.accuracy,
            reconstruction_accuracy=discovery.reconstruction_accuracy,
            judge_accuracies=list(discovery.judge_accuracies),
            failures=discovery.failures,
            regions=discovery.regions,
            new=[_candidate(scenario) for scenario in stored.new],
            known=[scenario.id for scenario in stored.known],
            seconds=time.monotonic() - started,
        )


def _candidate(scenario: Scenario) -> CandidateResult:
    record = scenario.record
    return CandidateResult(
        id=scenario.id,
        folder=str(scenario.folder),
        proposed_label=record.proposed_label,
        predicted=record.sheets.held_out.predicted,
        failed=record.failure_rate.failed,
        drawn=record.failure_rate.drawn,
    )
