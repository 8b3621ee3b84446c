"""The results of a correction, as plain values, ready for JSON."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_defuse.correct.audit import AUDITED_MODELS, Audit, SetScore
from pytest_defuse.correct.correction import Correction
from pytest_defuse.correct.harm import ClassDrop, PairedPredictions
from pytest_defuse.correct.trials import Trial
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import installed_versions
from pytest_defuse.scenarios.sheets import encode_sheet
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

CORRECTION_FLIPS_SHOWN = 24
"""Flipped test images that a report shows: about three rows of the HTML page. Our choice."""


@dataclass(frozen=True)
class TrialResult:
    """One finetuned model: accuracies in [0, 1]; scenario accuracies are on correction tiles.

    Attributes:
        lambda_: weight of the scenarios in the loss; 0 for the control.
        alpha: position between the old weights (0) and the finetuned ones (1).
        mean_accuracy: on validation images and their shifted copies.
        role: ``control``, ``chosen``, ``control, chosen`` or empty.
    """

    lambda_: float
    validation: float
    worst_scenario: float
    mean_scenario: float
    learning_rate: float = 0.0
    epochs: int = 0
    alpha: float = 1.0
    mean_accuracy: float | None = None
    role: str = ""


@dataclass(frozen=True)
class FlipResult:
    """A test image, by its ``index``, that the correction ``lost`` or ``gained`` (``kind``); a PNG in base64."""

    kind: str
    index: int
    label: str
    before: str
    after: str
    image: str


@dataclass(frozen=True)
class CorrectionResult:
    """The outcome of a correction.

    Attributes:
        output: the file that was written, an absolute path.
        problems: bounds that fail, in sentences; empty if ``output`` is the corrected checkpoint.
        sets: accuracy on everything that the choice of a trial did not use.
        classes: changes on the test set by class, the largest loss first.
        lost, gained: numbers of test images that were correct and are wrong, and the reverse.
        flips: the first of these.
        notes: sentences, such as those of a discovery on the corrected model.
        image_passes: images passed forward and backward in training.
        forward_passes: images passed only forward, those of the audit included.
    """

    subject: str
    validation_source: str
    before: TrialResult
    trials: list[TrialResult]
    output: str
    problems: list[str]
    seconds: float
    sets: list[SetScore] = field(default_factory=list)
    classes: list[ClassDrop] = field(default_factory=list)
    lost: int = 0
    gained: int = 0
    flips: list[FlipResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    image_passes: int = 0
    forward_passes: int = 0


def correction_result(
    subject: Subject,
    correction: Correction,
    audit: Audit,
    *,
    output: Path,
    problems: Sequence[str],
    notes: Sequence[str],
    seconds: float,
) -> CorrectionResult:
    """The result of a correction whose checkpoint was written to ``output``."""
    test = audit.test
    lost, gained = test.negative_flips.tolist(), test.positive_flips.tolist()
    flips = [*(("lost", index) for index in lost), *(("gained", index) for index in gained)]
    return CorrectionResult(
        subject=subject.name,
        validation_source=correction.validation_source,
        before=_trial(correction.before),
        trials=[_trial(trial, _role(trial, correction)) for trial in correction.trials],
        output=str(output.resolve()),
        problems=list(problems),
        seconds=seconds,
        sets=list(audit.scores),
        classes=test.class_drops(subject.classes),
        lost=len(lost),
        gained=len(gained),
        flips=[_flip(kind, index, test, subject) for kind, index in flips[:CORRECTION_FLIPS_SHOWN]],
        notes=list(notes),
        image_passes=correction.image_passes,
        forward_passes=correction.forward_passes + AUDITED_MODELS * sum(score.total for score in audit.scores),
    )


def provenance(
    subject: Subject,
    scenarios: Sequence[Scenario],
    original: Classifier,
    correction: Correction,
    audit: Audit,
    *,
    seed: int,
    problems: Sequence[str],
) -> dict[str, Any]:
    """The origin of a corrected model, as JSON values: the metadata of its checkpoint."""
    trial = correction.chosen
    sheets = {scenario.id: scenario.record.sheets for scenario in scenarios}
    return {
        "parent": original.fingerprint,
        "checkpoint": None if subject.checkpoint is None else Path(subject.checkpoint).name,
        "scenarios": {
            name: {"correction": both.correction.sha256, "held_out": both.held_out.sha256}
            for name, both in sheets.items()
        },
        "settings": {name: _plain(value) for name, value in correction.settings},
        "chosen": {"lambda": trial.lambda_, "rate": trial.learning_rate, "epochs": trial.epochs, "alpha": trial.alpha},
        "seed": seed,
        "device": str(original.device),
        "versions": installed_versions(),
        "accuracy before, control, after": {
            score.name: [count / max(1, score.total) for count in (score.before, score.control, score.after)]
            for score in audit.scores
        },
        "problems": list(problems),
    }


def _plain(value: Any) -> Any:
    """A setting as JSON has it; a function by its name."""
    return getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value


def _trial(trial: Trial, role: str = "") -> TrialResult:
    accuracies = [accuracy.value for accuracy in trial.scenarios.values()]
    return TrialResult(
        lambda_=trial.lambda_,
        validation=trial.validation.value,
        worst_scenario=min(accuracies),
        mean_scenario=sum(accuracies) / len(accuracies),
        learning_rate=trial.learning_rate,
        epochs=trial.epochs,
        alpha=trial.alpha,
        mean_accuracy=trial.mean_accuracy,
        role=role,
    )


def _role(trial: Trial, correction: Correction) -> str:
    roles = {"control": correction.control, "chosen": correction.chosen}
    return ", ".join(name for name, other in roles.items() if trial is other)


def _flip(kind: str, index: int, test: PairedPredictions, subject: Subject) -> FlipResult:
    label, before, after = (subject.classes[int(part[index])] for part in (test.labels, test.before, test.after))
    image = b64encode(encode_sheet(subject.test_images.pixels[index : index + 1].numpy())).decode()
    return FlipResult(kind, index, label, before, after, image)
