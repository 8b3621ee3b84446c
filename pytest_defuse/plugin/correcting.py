"""The correction in a session: finetuning before the tests, and the checkpoint after them."""

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_defuse.correct.audit import Audit, audit, no_audit
from pytest_defuse.correct.checkpoints import attempt_path, check_output, corrected_path, save_checkpoint
from pytest_defuse.correct.correction import correct
from pytest_defuse.correct.judgement import Judgement, outcome_of, problems_of
from pytest_defuse.correct.results import CorrectionResult, correction_result, provenance
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.gate.gate import Request
from pytest_defuse.plugin.options import Options
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject


class Correcting:
    """One subject's correction: it starts when a test first uses the model, and ends with the session.

    Everything that needs the subject's data, which its fixture may remove, happens before the fixture's teardown
    (:meth:`examine`); the checkpoint is written at the end of the session, when all tests have run.
    """

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
        self.minimum: dict[str, float] = {}
        for scenario, bounds in requests:
            required = bounds.required_accuracy(scenario.record.base_error_rate)
            if required is not None:
                self.minimum[scenario.id] = max(self.minimum.get(scenario.id, 0.0), required)
        self.output = options.correct_output or corrected_path(subject.checkpoint)
        check_output(self.output, subject.checkpoint)
        started = time.monotonic()
        self.correction = correct(
            subject,
            scenarios,
            self.minimum,
            self.settings,
            seed=options.seed,
            device=original.device,
            cache=options.cache,
            progress=progress,
        )
        self.seconds = time.monotonic() - started
        self.notes: list[str] | None = None
        self.model = subject.classifier(original.device, self.correction.model)

    def examine(self, *, promising: bool) -> None:
        """Evaluate the correction, and search its model if it may be accepted; afterwards no data is needed.

        Only the first call does anything.

        Args:
            promising: whether no test has failed so far.
        """
        if self.notes is None:
            accepted = outcome_of(self.audited.judgements) == "PASS" and promising
            self.notes = self._recheck() if accepted else []

    @cached_property
    def audited(self) -> Audit:
        """The evaluation on everything that the choice of a trial did not use; once, whatever happens."""
        control = self.subject.classifier(self.original.device, self.correction.control_model)
        try:
            models = (self.original, control, self.model)
            return audit(self.subject, self.scenarios, self.minimum, *models, self.settings)
        except DefuseError as error:  # a sheet or a shift set that cannot be read
            return no_audit(str(error))
        except Exception as error:  # the user's data set, shift set or model
            return no_audit(f"the correction could not be evaluated: {sentence_of(error)}")

    def finish(self, judgements: Sequence[Judgement]) -> CorrectionResult:
        """Write the corrected checkpoint if everything passes, else the attempt under another name.

        Args:
            judgements: of the session's tests; those of the audit are added.
        """
        judgements = [*judgements, *self.audited.judgements]
        accepted, problems = outcome_of(judgements) == "PASS", problems_of(judgements)
        output = self.output if accepted else attempt_path(self.output)
        if problem := self._save(output, problems):
            problems.append(problem)
        elif accepted:
            self.correction.remove_states()  # otherwise the same command would train again after the cause is fixed
        notes = [judgement.sentence for judgement in judgements if judgement.outcome == "PASS"]
        return correction_result(
            self.subject,
            self.correction,
            self.audited,
            output=output,
            problems=problems,
            notes=[*notes, *(self.notes or [])] if accepted else [],
            seconds=self.seconds,
        )

    def _save(self, output: Path, problems: Sequence[str]) -> str:
        """Write the model; returns a sentence if that fails."""
        correction, seed = self.correction, self.options.seed
        try:
            metadata = provenance(
                self.subject, self.scenarios, self.original, correction, self.audited, seed=seed, problems=problems
            )
            save_checkpoint(output, correction.model, metadata)
        except Exception as error:  # of the disk, safetensors, or the model's state_dict
            return f"{output} cannot be written ({sentence_of(error)}): run again, the training is kept"
        return ""

    def _recheck(self) -> list[str]:
        """The findings of a short discovery on the corrected model, in sentences; they change no outcome."""
        if not self.settings.recheck:
            return []
        from pytest_defuse.correct.recheck import recheck

        corrected, cache = replace(self.subject, model=self.correction.model), self.options.cache
        device = self.original.device
        try:
            return recheck(corrected, self.scenarios, device=device, cache=cache, progress=self.progress)
        except Exception as error:  # findings change no outcome
            return [f"the search of the corrected model failed: {sentence_of(error)}"]
        except KeyboardInterrupt:  # the correction is evaluated, and will be written
            return ["the search of the corrected model was interrupted"]


def stopped(error: Exception) -> DefuseError:
    """What every test of a correction reports after ``error`` stopped its training."""
    if isinstance(error, DefuseError):
        return error
    where = traceback.extract_tb(error.__traceback__)[-1]
    return DefuseError(
        f"The correction stopped: {sentence_of(error)} ({Path(where.filename).name}, line {where.lineno}). "
        "Its training so far is kept: fix this, and the same command continues it."
    )


def sentence_of(error: Exception) -> str:
    """An exception in one line: its message, with its type unless the message is for users."""
    if isinstance(error, DefuseError):
        return str(error)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(": ".join(filter(None, (type(error).__name__, reason))).split())
