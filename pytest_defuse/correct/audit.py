"""The evaluation of a correction on images that were not used to choose a trial: old model, control and new model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pytest_defuse.correct.data import labelled_tiles
from pytest_defuse.correct.harm import PairedPredictions, violations
from pytest_defuse.correct.judgement import Judgement, judge_scenario
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.shifts import SHIFTS, shifted_parts
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

AUDITED_MODELS = 3
"""The original model, the control and the corrected model."""

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
        test: the predictions on the test set.
        judgements: of each scenario, and of the bounds on harm that do not pass.
    """

    scores: tuple[SetScore, ...]
    test: PairedPredictions
    judgements: tuple[Judgement, ...]


def no_audit(problem: str) -> Audit:
    """The audit of a correction that cannot be evaluated: no scores, and this problem."""
    empty = PairedPredictions(*[torch.empty(0, dtype=torch.int64)] * 3)
    return Audit((), empty, (Judgement("INCONCLUSIVE", problem),))


def audit(
    subject: Subject,
    scenarios: Sequence[Scenario],
    minimum: Mapping[str, float],
    original: Classifier,
    control: Classifier,
    corrected: Classifier,
    settings: CorrectionSettings,
) -> Audit:
    """Evaluate the original model, the control and the corrected model; call it once, after the choice.

    Only one set is in memory at a time, and of a shifted copy only a part.

    Args:
        minimum: bound on the accuracy of each scenario that has one, by id, in [0, 1]; for others, ``target``.
    """

    def evaluate(name: str, kind: Kind, labels: Tensor, parts: Iterable[Tensor]) -> PairedPredictions:
        # Many small tensors between large ones would fragment the memory: 1.9 GB for 1,200 images of 224 px.
        predictions, start = torch.empty(AUDITED_MODELS, len(labels), dtype=torch.int64), 0
        for part in parts:
            for row, model in zip(predictions, (original, corrected, control), strict=True):
                row[start : start + len(part)] = model.predict(part)
            start += len(part)
        old, new, plain = predictions
        correct = (int((predicted == labels).sum()) for predicted in (old, plain, new))
        scores.append(SetScore(name, kind, len(labels), *correct))
        return PairedPredictions(labels, old, new)

    scores: list[SetScore] = []
    images = subject.test_images
    with seeded(0, original.device):
        test = evaluate("test set", "test set", images.labels, [images.pixels])
        shifts = {
            name: evaluate(name, "shifted copy", images.labels, shifted_parts(images.pixels, name)) for name in SHIFTS
        }
        for name in subject.shifts:
            shift = subject.shift_images(name)
            shifts[name] = evaluate(name, "shift set", shift.labels, [shift.pixels])
        judgements = []
        for scenario in scenarios:
            tiles = labelled_tiles(scenario, subject, "held_out")
            paired = evaluate(scenario.id, "scenario", tiles.labels, [tiles.pixels])
            origin = "its bound" if scenario.id in minimum else "defuse_correct(target=...)"
            required = minimum.get(scenario.id, settings.target)
            judgements.append(judge_scenario(paired.counts(scenario.id), required, origin))
    return Audit(tuple(scores), test, (*judgements, *violations(test, shifts, settings, subject.classes, "test set")))
