"""One subject in one pytest session: everything is computed when a test first asks for it, once."""

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from pytest_defuse.classifier import Classifier
from pytest_defuse.correcting import Correcting
from pytest_defuse.devices import device_named
from pytest_defuse.discover.discovery import Discovery, discover
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.errors import DefuseError
from pytest_defuse.explain.failure_modes import FailureMode, failure_modes
from pytest_defuse.gate.baseline import Baseline, load_baseline
from pytest_defuse.gate.bounds import Bounds
from pytest_defuse.gate.gate import GatedScenario, gate_scenario, measured, predict_test
from pytest_defuse.options import Options
from pytest_defuse.progress import Progress
from pytest_defuse.report.results import (
    CandidateResult,
    DiscoveryResult,
    FailureModeResult,
    ScenarioResult,
    TestSetResult,
)
from pytest_defuse.scenarios.candidates import store_candidates
from pytest_defuse.scenarios.sheets import pixel_hash
from pytest_defuse.scenarios.store import Scenario, Store
from pytest_defuse.subject import Subject


class SubjectRun:
    """Carries a subject through the verbs, and says what came out as results.

    Args:
        bounds: those of every scenario that a collected test gates, by id; correction aims at them.
        correction: what the tests' ``defuse_correct`` markers say.
    """

    def __init__(
        self,
        subject: Subject,
        options: Options,
        bounds: Mapping[str, Bounds],
        correction: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        self.subject = subject
        self.options = options
        self.bounds = bounds
        self.correction = correction
        self.progress = progress
        self.store = Store(options.store / subject.name)
        self._discoveries: dict[DiscoverySettings, tuple[Discovery, DiscoveryResult]] = {}

    @cached_property
    def device(self) -> torch.device:
        """Where models compute."""
        return device_named(self.options.device)

    @cached_property
    def original(self) -> Classifier:
        """The model under test."""
        return self.subject.classifier(self.device)

    @property
    def correcting(self) -> Correcting | None:
        """The correction, in a session that corrects; written when every test has judged its model."""
        if not self.options.correct:
            return None
        if isinstance(self.started_correction, DefuseError):
            raise self.started_correction
        return self.started_correction

    @cached_property
    def started_correction(self) -> Correcting | DefuseError:
        """The correction, or why there is none: no test tries again what another could not have."""
        try:
            return Correcting(
                self.subject,
                self.store.scenarios("accepted"),
                self.original,
                self.correction,
                self.bounds,
                self.options,
                self.progress,
            )
        except DefuseError as error:
            return error

    @cached_property
    def model(self) -> Classifier:
        """The model that tests judge: the corrected one in a session that corrects, else the original."""
        return self.original if self.correcting is None else self.correcting.model

    @cached_property
    def baseline(self) -> Baseline | None:
        """What an earlier run predicted, if the options name one."""
        return load_baseline(self.options.baseline) if self.options.baseline else None

    def gate(self, scenario: Scenario, bounds: Bounds) -> tuple[GatedScenario, ScenarioResult]:
        """Hold the model against a scenario."""
        gated = gate_scenario(scenario, self.subject, self.model, bounds, self.baseline)
        before = None
        if self.correcting is not None:
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
        if self.correcting is not None:
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

    @cached_property
    def failure_modes(self) -> tuple[list[FailureMode], list[FailureModeResult]]:
        """Barlow's rules for the model on the test set."""
        modes = failure_modes(self.subject, self.model, seed=self.options.seed)
        return modes, [
            FailureModeResult(
                subject=self.subject.name,
                group=mode.group,
                rule=mode.rule,
                error_rate=mode.error_rate,
                base_error_rate=mode.base_error_rate,
                error_coverage=mode.error_coverage,
                images=mode.images,
            )
            for mode in modes
        ]

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
            judge_accuracies=list(discovery.judges.accuracies),
            failures=discovery.failures,
            regions=len(discovery.regions),
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
        predicted=record.sheets.held_out.counts,
        failed=record.failure_rate.failed,
        drawn=record.failure_rate.drawn,
    )
