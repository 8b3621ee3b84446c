"""Correction within a run: what it is told, where its outcome goes, and what is said of it."""

import base64
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pytest_defuse.correct.audit import Audit, audit
from pytest_defuse.correct.checkpoints import attempt_path, check_output, corrected_path, save_checkpoint
from pytest_defuse.correct.correction import Correction, correct
from pytest_defuse.correct.harm import PairedPredictions
from pytest_defuse.correct.results import ClassDropResult, CorrectionResult, FlipResult, SetResult, TrialResult
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.trials import Trial
from pytest_defuse.gate.gate import Asked
from pytest_defuse.plugin.options import Options
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.schema import installed_versions
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

MOST_FLIPS = 24
"""Flipped test images that a report shows."""


class Correcting:
    """One subject's correction: started when a test first needs the corrected model, settled at the end.

    Args:
        given: what the tests' ``defuse_correct`` markers say.
        asked: every scenario that a collected test gates, with its bounds.

    Raises:
        DefuseError: a setting that cannot be, no place for the outcome, or nothing to correct.
    """

    def __init__(
        self,
        subject: Subject,
        scenarios: Sequence[Scenario],
        original: Classifier,
        given: Mapping[str, Any],
        asked: Sequence[Asked],
        options: Options,
        progress: Progress,
    ) -> None:
        self.subject, self.scenarios, self.original = subject, scenarios, original
        self.options, self.progress = options, progress
        settings = CorrectionSettings.of(given)
        drops = [bounds.max_shift_drop for _, bounds in asked if bounds.max_shift_drop is not None]
        self.settings = settings.replace(max_shift_drop=min(drops, default=settings.max_shift_drop))
        least: dict[str, float] = {}
        for scenario, bounds in asked:
            wanted = bounds.required_accuracy(scenario.record.base_error_rate)
            least[scenario.id] = max(least.get(scenario.id, 0.0), wanted)
        self.output = options.correct_output or corrected_path(subject.checkpoint)
        check_output(self.output, subject.checkpoint)
        started = time.monotonic()
        self.correction: Correction = correct(
            subject,
            scenarios,
            least,
            self.settings,
            seed=options.seed,
            device=original.device,
            cache=options.cache,
            progress=progress,
        )
        self.seconds = time.monotonic() - started
        self.model = subject.classifier(original.device, self.correction.model)

    @cached_property
    def audit(self) -> Audit:
        """Everything that the choice did not see; looked at when it is made."""
        control = self.subject.classifier(self.original.device, self.correction.control_model)
        try:
            return audit(self.subject, self.scenarios, self.original, control, self.model, self.settings)
        except DefuseError as error:  # a picture or a shift set that cannot be read
            return Audit((), PairedPredictions(*[torch.empty(0, dtype=torch.int64)] * 3), (str(error),))

    def settle(self, problems: Sequence[str]) -> CorrectionResult:
        """Write the corrected checkpoint if nothing speaks against it, else keep the attempt under another name.

        Args:
            problems: what the tests say against the corrected model, in sentences.
        """
        audited = self.audit
        problems = [*problems, *audited.problems]
        output = attempt_path(self.output) if problems else self.output
        try:
            save_checkpoint(output, self.correction.model, self._metadata(problems))
        except OSError as error:
            problems.append(f"{output} cannot be written ({error.strerror}): run again, the training is kept")
        else:
            self.correction.remove_states()
        return self._result(output, problems, [] if problems else self._rechecked())

    def _rechecked(self) -> list[str]:
        """What a short discovery finds on the corrected model, in sentences; it changes no outcome."""
        if not self.settings.recheck:
            return []
        from pytest_defuse.correct.recheck import recheck

        corrected = replace(self.subject, model=self.correction.model)
        try:
            return recheck(
                corrected,
                self.scenarios,
                device=self.original.device,
                cache=self.options.cache,
                progress=self.progress,
            )
        except DefuseError as error:
            return [f"the corrected model could not be searched again: {error}"]
        except KeyboardInterrupt:  # the corrected model is written
            return ["searching the corrected model was interrupted"]

    def _metadata(self, problems: Sequence[str]) -> dict[str, Any]:
        chosen = self.correction.chosen
        sheets = {s.id: s.record.sheets for s in self.scenarios}
        return {
            "parent": self.original.hash,
            "checkpoint": None if self.subject.checkpoint is None else Path(self.subject.checkpoint).name,
            "scenarios": {
                name: {"correction": sheet.correction.sha256, "held_out": sheet.held_out.sha256}
                for name, sheet in sheets.items()
            },
            "settings": {name: _plain(value) for name, value in self.settings},
            "chosen": {
                "lambda": chosen.lambda_,
                "rate": chosen.learning_rate,
                "epochs": chosen.epochs,
                "alpha": chosen.alpha,
            },
            "seed": self.options.seed,
            "device": str(self.original.device),
            "versions": installed_versions(),
            "accuracy before, control, after": {
                score.name: [count / max(1, score.total) for count in (score.before, score.control, score.after)]
                for score in self.audit.scores
            },
            "problems": list(problems),
        }

    def _result(self, output: Path, problems: list[str], found: list[str]) -> CorrectionResult:
        correction, audited = self.correction, self.audit
        test = audited.test
        flips = [("lost", i) for i in test.negative_flips.tolist()] + [("won", i) for i in test.positive_flips.tolist()]
        return CorrectionResult(
            subject=self.subject.name,
            validation_source=correction.validation_source,
            before=_row(correction.before),
            trials=[_row(trial, self._role(trial)) for trial in correction.trials],
            chosen=correction.chosen.lambda_,
            shifts={},
            output=str(output.resolve()),
            problems=problems,
            seconds=self.seconds,
            sets=[SetResult(**asdict(score)) for score in audited.scores],
            classes=[
                ClassDropResult(self.subject.classes[d.label], d.total, d.negative, d.positive)
                for d in test.class_drops()
            ],
            lost=len(test.negative_flips),
            won=len(test.positive_flips),
            flips=[self._flip(kind, index) for kind, index in flips[:MOST_FLIPS]],
            found=found,
            images=correction.image_passes,
        )

    def _role(self, trial: Trial) -> str:
        roles = {"control": trial is self.correction.control, "chosen": trial is self.correction.chosen}
        return ", ".join(name for name, holds in roles.items() if holds)

    def _flip(self, kind: str, index: int) -> FlipResult:
        test, classes = self.audit.test, self.subject.classes
        before, after, label = (classes[int(part[index])] for part in (test.before, test.after, test.labels))
        return FlipResult(kind, index, label, before, after, _png(self.subject.test_images.pixels[index]))


def _row(trial: Trial, role: str = "") -> TrialResult:
    shares = [accuracy.value for accuracy in trial.scenarios.values()]
    return TrialResult(
        trial.lambda_,
        trial.validation.value,
        min(shares),
        sum(shares) / len(shares),
        trial.learning_rate,
        trial.epochs,
        trial.alpha,
        trial.mean_accuracy,
        role,
    )


def _plain(value: Any) -> Any:
    """A setting as JSON has it; a function by its name."""
    return getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value


def _png(pixels: torch.Tensor) -> str:
    """One image, uint8 C x H x W, as a PNG in base64."""
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
