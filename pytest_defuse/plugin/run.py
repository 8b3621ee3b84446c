"""One subject in one pytest session: everything is computed when a test first asks for it, once.

What most sessions do not need, such as searching and finetuning, is also imported only then.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from pytest_defuse.discover.results import DiscoveryResult
from pytest_defuse.explain.results import ExplanationResult
from pytest_defuse.gate.baseline import SubjectBaseline, load_baseline
from pytest_defuse.gate.checks import Answers
from pytest_defuse.gate.gate import (
    Asked,
    GatedScenario,
    GatedSet,
    answers_to,
    gate_scenarios,
    gate_test,
    gate_together,
)
from pytest_defuse.gate.predictions import Predictions, counted_tiles, predict_scenarios, predict_test
from pytest_defuse.gate.results import FLIPS_SHOWN, OverallResult, ScenarioResult, TestSetResult
from pytest_defuse.plugin.options import Options
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.sharing import Sharing
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.scenarios.store import Scenario, Store
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import device_named
from pytest_defuse.subject.subject import Subject

if TYPE_CHECKING:
    from pytest_defuse.discover.discovery import Discovery
    from pytest_defuse.discover.settings import DiscoverySettings
    from pytest_defuse.explain.explanation import Explanation
    from pytest_defuse.explain.settings import ExplainSettings
    from pytest_defuse.plugin.correcting import Correcting


class SubjectRun:
    """Carries a subject through the verbs, and says what came out as results.

    Args:
        asked: every scenario that a collected test gates, with its bounds; they are judged at once, and
            correction aims at them.
        sharing: with the other processes of the session.
        correction: what the tests' ``defuse_correct`` markers say.
    """

    def __init__(
        self,
        subject: Subject,
        options: Options,
        asked: Sequence[Asked],
        progress: Progress,
        sharing: Sharing | None = None,
        correction: Mapping[str, Any] | None = None,
    ) -> None:
        self.subject = subject
        self.options = options
        self.asked = [(scenario, bounds) for scenario, bounds in asked if scenario.subject == subject.name]
        self.correction = correction or {}
        self.progress = progress
        self.sharing = sharing or Sharing()
        self.store = Store(options.store / subject.name)
        self._predicted: dict[Classifier, dict[str, Predictions | DefuseError]] = {}
        self._discoveries: dict[DiscoverySettings, tuple[Discovery, DiscoveryResult]] = {}
        self._explanations: dict[ExplainSettings, tuple[Explanation, ExplanationResult]] = {}

    @cached_property
    def device(self) -> torch.device:
        """Where models compute."""
        return device_named(self.options.device, self.sharing.worker)

    @cached_property
    def original(self) -> Classifier:
        """The model under test."""
        return self.subject.classifier(self.device)

    @property
    def correcting(self) -> "Correcting | None":
        """The correction, in a session that corrects; written when every test has judged its model."""
        if not self.options.correct:
            return None
        if isinstance(self.started_correction, DefuseError):
            raise self.started_correction
        return self.started_correction

    @cached_property
    def started_correction(self) -> "Correcting | DefuseError":
        """The correction, or why there is none: no test tries again what another could not have."""
        from pytest_defuse.plugin.correcting import Correcting

        accepted = self.store.scenarios("accepted")
        try:
            return Correcting(
                self.subject, accepted, self.original, self.correction, self.asked, self.options, self.progress
            )
        except DefuseError as error:
            return error

    @cached_property
    def model(self) -> Classifier:
        """The model that tests judge: the corrected one in a session that corrects, else the original."""
        return self.original if self.correcting is None else self.correcting.model

    @cached_property
    def baseline(self) -> SubjectBaseline | None:
        """What an earlier run predicted; None where the options name no file, or none that is there yet."""
        file = self.options.baseline
        return load_baseline(file).of(self.subject.name) if file and file.exists() else None

    def gate(self, scenario: Scenario, bounds: Bounds) -> tuple[GatedScenario, ScenarioResult]:
        """Hold the model against a scenario, judged at once with all others that tests gate.

        Raises:
            DefuseError: the scenario's pictures do not fit, or are not the baseline's.
        """
        gated = self._gated.get((scenario.id, bounds))
        if gated is None:  # bounds that a test was given while it ran
            alone = [(scenario, bounds)]
            [gated] = gate_scenarios(alone, self._said([scenario], self.model), self.model, self.baseline).values()
        if isinstance(gated, DefuseError):
            raise gated
        said, verdict = gated.said, gated.verdict
        return gated, ScenarioResult(
            subject=self.subject.name,
            id=gated.id,
            label=gated.label,
            folder=str(scenario.folder),
            correct=gated.accuracy.correct,
            total=gated.accuracy.total,
            confidence=gated.accuracy.confidence,
            outcome=verdict.outcome,
            bound=verdict.bound,
            reason=verdict.reason,
            predicted=list(said.predicted),
            images=said.images,
            model=self.model.hash,
            before=self._correct_before([scenario]),
            confidences=list(said.confidences),
            tiles=counted_tiles(scenario),
            sheet_tiles=scenario.record.sheets.held_out.images,
            checks=list(verdict.checks),
            comparison=gated.comparison,
        )

    def gate_all(self, bounds: Bounds | None) -> tuple[GatedSet, OverallResult]:
        """Hold the model against all accepted scenarios together, or against those that ``only`` names.

        Raises:
            DefuseError: there is none, a scenario's pictures do not fit, or they are not the baseline's.
        """
        only = bounds.only if bounds else ()
        scenarios = [
            scenario
            for scenario in self.store.scenarios("accepted")
            if not only or scenario.id in only or scenario.record.label in only
        ]
        if not scenarios:
            raise DefuseError(f"There is no accepted scenario in {self.store.folder}: accept what you can label.")
        said = self._said(scenarios, self.model)
        answers = [answers_to(s, said[s.id], self.model, self.baseline) for s in scenarios]
        for answer in answers:
            if isinstance(answer, DefuseError):
                raise answer
        readable = [answer for answer in answers if isinstance(answer, Answers)]
        together = gate_together(f"all scenarios of {self.subject.name}", readable, bounds)
        return together, OverallResult(
            subject=self.subject.name,
            scenarios=[scenario.id for scenario in scenarios],
            correct=together.correct,
            total=together.total,
            confidence=together.confidence,
            outcome=together.verdict.outcome,
            bound=together.verdict.bound,
            reason=together.verdict.reason,
            labels=list(together.answers.labels),
            predicted=list(together.answers.predicted),
            model=self.model.hash,
            before=self._correct_before(scenarios),
            checks=list(together.verdict.checks),
            comparison=together.comparison,
        )

    def gate_test(self, bounds: Bounds | None) -> tuple[GatedSet, TestSetResult]:
        """Hold the model against the test set.

        Raises:
            DefuseError: the baseline is about another test set.
        """
        said = self._test
        gated = gate_test(self.subject, self.model, said, bounds, self.baseline)
        before = None
        if self.correcting is not None:
            pairs = zip(gated.answers.labels, predict_test(self.subject, self.original).predicted, strict=True)
            before = sum(label == predicted for label, predicted in pairs)
        return gated, TestSetResult(
            subject=self.subject.name,
            correct=gated.correct,
            total=gated.total,
            predicted=list(said.predicted),
            images=said.images,
            model=self.model.hash,
            before=before,
            confidence=gated.confidence,
            outcome=gated.verdict.outcome,
            bound=gated.verdict.bound,
            reason=gated.verdict.reason,
            labels=list(gated.answers.labels),
            confidences=list(said.confidences),
            checks=list(gated.verdict.checks),
            comparison=gated.comparison,
            flip_sheet=self._flip_sheet(gated.comparison.lost) if gated.comparison else "",
        )

    def discover(self, given: Mapping[str, Any]) -> "tuple[Discovery, DiscoveryResult]":
        """Search the original model for failures and write candidates to the store; once for equal settings."""
        from pytest_defuse.discover.settings import DiscoverySettings

        settings = DiscoverySettings.of(given)
        if settings not in self._discoveries:
            self._discoveries[settings] = self._discover(settings)
        return self._discoveries[settings]

    def explain(self, given: Mapping[str, Any]) -> "tuple[Explanation, ExplanationResult]":
        """Barlow's rules for the model on the test set, candidates too when discovering; once for equal settings."""
        from pytest_defuse.explain.settings import ExplainSettings

        settings = ExplainSettings.of(given)
        if settings not in self._explanations:
            self._explanations[settings] = self._explain(settings)
        return self._explanations[settings]

    def _explain(self, settings: "ExplainSettings") -> "tuple[Explanation, ExplanationResult]":
        from pytest_defuse.discover.results import candidate_result
        from pytest_defuse.explain.explanation import explain
        from pytest_defuse.explain.results import explanation_result
        from pytest_defuse.explain.slices import store_failure_modes

        explanation = explain(
            self.subject,
            self.model,
            settings,
            seed=self.options.seed,
            cache=self.options.cache,
            progress=self.progress,
            names=self.store.feature_names() if self.store.exists() else {},
        )
        # Only the HTML report shows figures.
        result = explanation_result(explanation, figures=self.options.report is not None)
        if self.options.discover:
            stored = store_failure_modes(self.store, explanation, self.options.cache)
            new = [candidate_result(scenario) for scenario in stored.new]
            result = replace(result, new=new, known=[scenario.id for scenario in stored.known])
        return explanation, result

    @cached_property
    def _test(self) -> Predictions:
        """What the model says of the test set."""
        return predict_test(self.subject, self.model, self.sharing)

    @cached_property
    def _gated(self) -> dict[tuple[str, Bounds], GatedScenario | DefuseError]:
        """What becomes of all scenarios that tests gate, judged at once."""
        return gate_scenarios(self.asked, self._said([], self.model), self.model, self.baseline)

    def _said(self, scenarios: Sequence[Scenario], model: Classifier) -> dict[str, Predictions | DefuseError]:
        """What a model says of scenarios and of all that tests gate: those new to it go through it together."""
        known = self._predicted.setdefault(model, {})
        wanted = {scenario.id: scenario for scenario in [*(scenario for scenario, _ in self.asked), *scenarios]}
        new = [scenario for name, scenario in wanted.items() if name not in known]
        known |= predict_scenarios(self.subject, model, new, self.sharing)
        return known

    def _correct_before(self, scenarios: Sequence[Scenario]) -> int | None:
        """How many tiles the uncorrected model has right, in a run that corrects."""
        if self.correcting is None:
            return None
        said = self._said(scenarios, self.original)
        answers = [answers_to(scenario, said[scenario.id], self.original) for scenario in scenarios]
        return sum(answer.correct for answer in answers if isinstance(answer, Answers))

    def _flip_sheet(self, lost: Sequence[int]) -> str:
        """The first images of the test set that flipped, as a contact sheet in base64."""
        if not lost:
            return ""
        from base64 import b64encode

        from pytest_defuse.scenarios.sheets import encode_sheet

        pixels = self.subject.test_images.pixels[list(lost[:FLIPS_SHOWN])]
        return b64encode(encode_sheet(pixels.numpy())).decode()

    def _discover(self, settings: "DiscoverySettings") -> "tuple[Discovery, DiscoveryResult]":
        from pytest_defuse.discover.candidates import store_candidates
        from pytest_defuse.discover.discovery import discover
        from pytest_defuse.discover.results import candidate_result, latent_map_result, novelty_results

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
        discovery.journal.remove()
        # Only a report shows them.
        shown = bool(self.options.report or self.options.results)
        novelties = novelty_results(discovery, self.subject, self.original) if shown else {}
        return discovery, DiscoveryResult(
            subject=self.subject.name,
            accuracy=discovery.accuracy,
            reconstruction_accuracy=discovery.reconstruction_accuracy,
            judge_accuracies=list(discovery.judges.accuracies),
            failures=discovery.failures,
            regions=len(discovery.regions),
            new=[
                candidate_result(scenario, novelties.get(scenario.record.sheets.held_out.sha256))
                for scenario in stored.new
            ],
            known=[scenario.id for scenario in stored.known],
            seconds=time.monotonic() - started,
            latent_map=latent_map_result(discovery, self.subject, self.options.seed) if shown else None,
        )
