"""The evaluation of a correction on images that were not used to choose a trial: old model, control and new model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from pytest_defuse.correct.data import labelled_tiles
from pytest_defuse.correct.harm import PairedPredictions, violations
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.shifts import shifted_copies
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject

Kind = Literal["test set", "shifted copy", "shift set", "scenario"]


@dataclass(frozen=True)
class SetScore:
    """How many of ``total`` images the old model, the control and the corrected model classify correctly."""

    name: str
    kind: Kind
    total: int
    before: int
    control: int
    after: int


@dataclass(frozen=True, eq=False)
class Audit:
    """Accuracies on images that a correction did not use.

    Attributes:
        scores: of the test set, its shifted copies, the shift sets and the held-out tiles of each scenario.
        problems: bounds on harm that fail, in sentences.
    """

    scores: tuple[SetScore, ...]
    test: PairedPredictions
    problems: tuple[str, ...]


def no_audit(problem: str) -> Audit:
    """The audit of a correction whose images cannot be read: no scores, and this problem."""
    return Audit((), PairedPredictions(*[torch.empty(0, dtype=torch.int64)] * 3), (problem,))


def audit(
    subject: Subject,
    scenarios: Sequence[Scenario],
    original: Classifier,
    control: Classifier,
    corrected: Classifier,
    settings: CorrectionSettings,
) -> Audit:
    """Evaluate the original model, the control and the corrected model; call it once, after the choice."""
    with seeded(0):
        shifts = shifted_copies(subject.test_images) | {name: subject.shift_images(name) for name in subject.shifts}
        sets: list[tuple[str, Kind, LabelledImages]] = [
            ("test set", "test set", subject.test_images),
            *((name, "shift set" if name in subject.shifts else "shifted copy", part) for name, part in shifts.items()),
            *((scenario.id, "scenario", labelled_tiles(scenario, subject, "held_out")) for scenario in scenarios),
        ]
        scores: list[SetScore] = []
        compared: list[PairedPredictions] = []
        for name, kind, images in sets:
            old, new, plain = (model.predict(images.pixels) for model in (original, corrected, control))
            correct = [int((predicted == images.labels).sum()) for predicted in (old, plain, new)]
            scores.append(SetScore(name, kind, len(images), *correct))
            compared.append(PairedPredictions(images.labels, old, new))
    test, *others = compared
    shifted = dict(zip(shifts, others, strict=False))
    return Audit(tuple(scores), test, tuple(violations(test, shifted, settings, subject.classes, "test set")))
