"""One subject in one pytest session. Everything is computed once, when a test first uses it.

Searching, finetuning and failure modes are also imported only then: most sessions need none of them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from pytest_defuse.gate.baseline import NO_BASELINE, SubjectBaseline, subject_baseline
from pytest_defuse.gate.gate import Request, gate_scenarios, gate_test, gate_together
from pytest_defuse.gate.predictions import Predictions, predict_scenarios, predict_test
from pytest_defuse.gate.results import ModelResult, OverallResult, ScenarioResult, TestSetResult
from pytest_defuse.plugin.options import Options
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.sharing import Sharing
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.scenarios.lookup import named
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store, Stored
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import device_named
from pytest_defuse.subject.subject import Subject

if TYPE_CHECKING:
    from pytest_defuse.discover.discovery import Discovery
    from pytest_defuse.discover.results import DiscoveryResult
    from pytest_defuse.discover.settings import DiscoverySettings
    from pytest_defuse.explain.explanation import Explanation
    from pytest_defuse.explain.results import ExplanationResult
    from pytest_defuse.explain.settings import ExplainSettings
    from pytest_defuse.plugin.correcting import Correcting


class SubjectRun:
    """The subject's model, predictions, gate, discoveries, failure modes and correction in this session.

    Args:
        requests: scenarios that the collected tests gate, with their bounds. They are evaluated together, and
            correction trains for them.
        sharing: of predictions with the other processes of the session.
        correction: the settings in the tests' ``defuse_correct`` markers.

    Attributes:
        started: the correction once it has started, or the error that prevented it.
    """

    def __init__(
        self,
        subject: Subject,
        options: Options,
        requests: Sequence[Request],
        progress: Progress,
        sharing: Sharing | None = None,
        correction: Mapping[str, Any] | None = None,
    ) -> None:
        self.subject, self.options, self.progress = subject, options, progress
        self.requests = [(scenario, bounds) for scenario, bounds in requests if scenario.subject == subject.name]
        self.correction = correction or {}
        self.sharing = sharing or Sharing()
        self.store = Store(options.store / subject.name)
        self.started: Correcting | DefuseError | None = None
        self._predicted: dict[Classifier, dict[str, Predictions | DefuseError]] = {}
        self._discoveries: dict[DiscoverySettings, tuple[Discovery, DiscoveryResult]] = {}
        self._explanations: dict[ExplainSettings, tuple[Explanation, ExplanationResult]] = {}

    @cached_property
    def device(self) -> torch.device:
        """The device that models run on."""
        return device_named(self.options.device, self.sharing.worker)

    @cached_property
    def original(self) -> Classifier:
        """The subject's model."""
        return self.subject.classifier(self.device)

    @property
    def correcting(self) -> "Correcting | None":
        """The correction, which the first access starts; None in a session that does not correct."""
        if self.options.correct and self.started is None:
            from pytest_defuse.plugin.correcting import Correcting, stopped

            accepted = self.store.scenarios("accepted")
            try:
                self.started = Correcting(
                    self.subject, accepted, self.original, self.correction, self.requests, self.options, self.progress
                )
            except Exception as error:  # the following tests report it too, and do not train again
                self.started = stopped(error)
        if isinstance(self.started, DefuseError):
            raise self.started
        return self.started

    @cached_property
    def model(self) -> Classifier:
        """The model that tests evaluate: the corrected one in a session that corrects, else the subject's."""
        return self.correcting.model if self.correcting else self.original

    @cached_property
    def baseline(self) -> SubjectBaseline:
        """The predictions of an earlier run; none without ``--defuse-baseline``.

        Raises:
            DefuseError: the file or the subject in it is not there, and this is no first run; or it cannot be read.
        """
        file, first_run = self.options.baseline, self.options.first_run
        if not file or (first_run and not file.exists()):
            return replace(NO_BASELINE, first_run=first_run)
        baseline = subject_baseline(file, self.subject, first_run)
        if baseline.model == self.model.fingerprint and not baseline.same_model(self.model):
            self.progress.say(
                f"{file} counts as a baseline from another model: this one has the same weights, but other logits for "
                "the same images"
            )
        return baseline

    @cached_property
    def models(self) -> tuple[ModelResult, ...]:
        """The identity of the model that tests evaluate; empty in a session that saves no baseline."""
        subject = self.subject
        return (
            (ModelResult.of(subject.name, self.model.identity, subject.classes),) if self.options.save_baseline else ()
        )

    def gate(self, scenario: Scenario, bounds: Bounds) -> ScenarioResult:
        """Evaluate a scenario, together with all others that tests gate."""
        # Only a bound that a test adds while it runs is not among the collected ones.
        result = self._gated.get((scenario.id, bounds)) or self._gate([(scenario, bounds)])[scenario.id, bounds]
        if isinstance(result, DefuseError):
            raise result
        return result

    def gate_all(self, bounds: Bounds | None) -> OverallResult:
        """Evaluate all accepted scenarios together, or those that ``only`` names."""
        accepted = self.store.scenarios("accepted")
        scenarios = named(accepted, bounds.only if bounds else (), self.store.folder)
        if not scenarios:
            raise DefuseError(f"There is no accepted scenario in {self.store.folder}: accept what you can label.")
        predictions, uncorrected = self._predictions(scenarios)
        return gate_together(scenarios, predictions, self.model, bounds, self.baseline, uncorrected)

    def gate_test(self, bounds: Bounds | None) -> TestSetResult:
        """Evaluate the test set."""
        uncorrected = predict_test(self.subject, self.original) if self.correcting else None
        return gate_test(self.subject, self.model, self._test_predictions, bounds, self.baseline, uncorrected)

    def discover(self, values: Mapping[str, Any]) -> "tuple[Discovery, DiscoveryResult]":
        """Search the subject's model for failures and store candidates; once for equal settings."""
        from pytest_defuse.discover.candidates import store_candidates
        from pytest_defuse.discover.discovery import discover
        from pytest_defuse.discover.settings import DiscoverySettings
        from pytest_defuse.discover.summary import discovery_result

        settings, options, started = DiscoverySettings.of(values), self.options, time.monotonic()
        if settings not in self._discoveries:
            discovery = discover(
                self.subject,
                settings,
                seed=options.seed,
                device=self.device,
                cache=options.cache,
                progress=self.progress,
                store=self.store,
            )
            stored = store_candidates(self.store, self.subject, discovery)
            discovery.journal.remove()
            result = discovery_result(
                discovery,
                stored,
                self.subject,
                self.original,
                seconds=time.monotonic() - started,
                details=options.details,
            )
            self._discoveries[settings] = discovery, result
        return self._discoveries[settings]

    def explain(self, values: Mapping[str, Any]) -> "tuple[Explanation, ExplanationResult]":
        """Find failure modes on the test set, and store candidates if discovering; once for equal settings."""
        from pytest_defuse.explain.explanation import explain
        from pytest_defuse.explain.settings import ExplainSettings
        from pytest_defuse.explain.slices import store_failure_modes
        from pytest_defuse.explain.summary import explanation_result
        from pytest_defuse.scenarios.room import room_for

        settings, options = ExplainSettings.of(values), self.options
        if settings not in self._explanations:
            if options.discover:
                room_for(self.store, self.subject)  # a store that is full is noticed before the work
            explanation = explain(
                self.subject,
                self.model,
                settings,
                seed=options.seed,
                cache=options.cache,
                progress=self.progress,
                names=self.store.feature_names() if self.store.exists() else {},
            )
            stored = Stored((), ())
            if options.discover:
                stored = store_failure_modes(self.store, explanation, options.cache)
            result = explanation_result(explanation, stored, figures=options.details)
            self._explanations[settings] = explanation, result
        return self._explanations[settings]

    @cached_property
    def _test_predictions(self) -> Predictions:
        return predict_test(self.subject, self.model, self.sharing)

    @cached_property
    def _gated(self) -> dict[tuple[str, Bounds], ScenarioResult | DefuseError]:
        return self._gate(self.requests)

    def _gate(self, requests: Sequence[Request]) -> dict[tuple[str, Bounds], ScenarioResult | DefuseError]:
        predictions, uncorrected = self._predictions([scenario for scenario, _ in requests])
        return gate_scenarios(requests, predictions, self.model, self.baseline, uncorrected)

    def _predictions(
        self, scenarios: Sequence[Scenario]
    ) -> tuple[dict[str, Predictions | DefuseError], dict[str, Predictions | DefuseError] | None]:
        """Predictions of the model and, in a session that corrects, of the uncorrected one."""
        uncorrected = self._predictions_of(self.original, scenarios) if self.correcting else None
        return self._predictions_of(self.model, scenarios), uncorrected

    def _predictions_of(self, model: Classifier, scenarios: Sequence[Scenario]) -> dict[str, Predictions | DefuseError]:
        """A model's predictions; the first call also predicts all scenarios that tests gate, in full batches."""
        known = self._predicted.setdefault(model, {})
        needed = {scenario.id: scenario for scenario in [*(scenario for scenario, _ in self.requests), *scenarios]}
        new = [scenario for name, scenario in needed.items() if name not in known]
        known |= predict_scenarios(self.subject, model, new, self.sharing)
        return known
