"""The correction in a session: finetuning before the tests, and the checkpoint after them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_defuse.correct.audit import Audit, audit, no_audit
from pytest_defuse.correct.checkpoints import attempt_path, check_output, corrected_path, save_checkpoint
from pytest_defuse.correct.correction import correct
from pytest_defuse.correct.results import CorrectionResult, correction_result, provenance
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.gate.gate import Request
from pytest_defuse.plugin.options import Options
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject


class Correcting:
    """One subject's correction: it starts when a test first uses the model, and ends with the session."""

    def __init__(
        self,
        subject: Subject,
        scenarios: Sequence[Scenario],
        original: Classifier,
        marked: Mapping[str, Any],
        requests: Sequence[Request],
        options: Options,
        progress: Progress,
    ) -> None:
        self.subject, self.scenarios, self.original = subject, scenarios, original
        self.options, self.progress = options, progress
        settings = CorrectionSettings.of(marked)
        drops = [bounds.max_shift_drop for _, bounds in requests if bounds.max_shift_drop is not None]
        self.settings = settings.replace(max_shift_drop=min(drops, default=settings.max_shift_drop))
        minimum: dict[str, float] = {}
        for scenario, bounds in requests:
            required = bounds.required_accuracy(scenario.record.base_error_rate)
            minimum[scenario.id] = max(minimum.get(scenario.id, 0.0), required)
        self.output = options.correct_output or corrected_path(subject.checkpoint)
        check_output(self.output, subject.checkpoint)
        started = time.monotonic()
        self.correction = correct(
            subject,
            scenarios,
            minimum,
            self.settings,
            seed=options.seed,
            device=original.device,
            cache=options.cache,
            progress=progress,
        )
        self.seconds = time.monotonic() - started
        self.model = subject.classifier(original.device, self.correction.model)

    def finish(self, problems: Sequence[str]) -> CorrectionResult:
        """Write the corrected checkpoint; with any problem, such as a failed test, the attempt under another name."""
        audit = self._audit()
        problems = [*problems, *audit.problems]
        output = attempt_path(self.output) if problems else self.output
        correction, subject, seed = self.correction, self.subject, self.options.seed
        metadata = provenance(subject, self.scenarios, self.original, correction, audit, seed=seed, problems=problems)
        try:
            save_checkpoint(output, correction.model, metadata)
        except OSError as error:
            problems.append(f"{output} cannot be written ({error.strerror}): run again, the training is kept")
        else:
            correction.remove_states()
        notes = [] if problems else self._recheck()
        return correction_result(
            subject, correction, audit, output=output, problems=problems, notes=notes, seconds=self.seconds
        )

    def _audit(self) -> Audit:
        """The evaluation on everything that the choice of a trial did not use."""
        control = self.subject.classifier(self.original.device, self.correction.control_model)
        try:
            return audit(self.subject, self.scenarios, self.original, control, self.model, self.settings)
        except DefuseError as error:  # a sheet or a shift set that cannot be read
            return no_audit(str(error))

    def _recheck(self) -> list[str]:
        """The findings of a short discovery on the corrected model, in sentences; they change no outcome."""
        if not self.settings.recheck:
            return []
        from pytest_defuse.correct.recheck import recheck

        corrected, cache = replace(self.subject, model=self.correction.model), self.options.cache
        device = self.original.device
        try:
            return recheck(corrected, self.scenarios, device=device, cache=cache, progress=self.progress)
        except DefuseError as error:
            return [f"the search of the corrected model failed: {error}"]
        except KeyboardInterrupt:  # the checkpoint is already written
            return ["the search of the corrected model was interrupted"]
