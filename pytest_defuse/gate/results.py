"""Verdicts of the gate, as plain values, ready for JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_defuse.gate.checks import WORST_FIRST, Check, Comparison, Outcome
from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.statistics.accuracy import DEFAULT_CONFIDENCE, Accuracy
from pytest_defuse.subject.identity import Identity

Logits = tuple[tuple[float, ...], ...]

FLIPS_PER_SET = 64
"""Flips that a report shows of one scenario or test set: eight rows of eight. Our choice."""


@dataclass(frozen=True)
class ModelResult:
    """An evaluated model, in a run that saves a baseline.

    Attributes:
        logits: of the fixed images, to five digits.
        classes: names, in the order of the logits; empty in results that lack them.
    """

    subject: str
    fingerprint: str
    logits: Logits
    classes: tuple[str, ...] = ()

    @staticmethod
    def of(subject: str, identity: Identity, classes: Sequence[str]) -> "ModelResult":
        """The result of a subject with this model and these classes."""
        logits = tuple(tuple(float(f"{value:.5g}") for value in row) for row in identity.outputs.tolist())
        return ModelResult(subject, identity.fingerprint, logits, tuple(classes))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A model's predictions on one set of images, and the bounds evaluated on them.

    Attributes:
        model: the fingerprint of the model's identity.
        confidence: of the accuracy's interval, in (0, 1).
        checks: one per bound and group of images; empty if no bound was requested.
        comparison: with the baseline; None if it contains none of the images.
        correct_before: how many images the uncorrected model classifies correctly; None without a correction.
    """

    kind: ClassVar[str] = ""

    subject: str
    model: str
    predictions: LabelledPredictions
    confidence: float = DEFAULT_CONFIDENCE
    checks: tuple[Check, ...] = ()
    comparison: Comparison | None = None
    correct_before: int | None = None

    @property
    def name(self) -> str:
        """The images in words: ``test set of digits``."""
        return f"{self.kind} of {self.subject}"

    @property
    def correct(self) -> int:
        """Number of images that the model classifies correctly."""
        return self.predictions.correct

    @property
    def total(self) -> int:
        """Number of images."""
        return self.predictions.total

    @property
    def accuracy(self) -> Accuracy:
        """``correct`` of ``total`` with its interval."""
        return Accuracy(self.correct, self.total, self.confidence)

    @property
    def decisive(self) -> Check | None:
        """Of the checks with the worst outcome, the one that requires the highest accuracy; None without checks."""
        return min(self.checks, key=lambda c: (WORST_FIRST.index(c.outcome), -c.accuracy), default=None)

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the checks; PASS without checks."""
        return self.decisive.outcome if self.decisive else "PASS"

    @property
    def bound(self) -> float:
        """The accuracy that the decisive check requires, in [0, 1]; 0 if it requires none."""
        return self.decisive.accuracy if self.decisive else 0.0

    @property
    def reason(self) -> str:
        """The origin of the decisive bound, in words; empty without checks."""
        return self.decisive.reason if self.decisive else ""


@dataclass(frozen=True, kw_only=True)
class ScenarioResult(Verdict):
    """The verdict on the held-out tiles of an accepted scenario.

    Attributes:
        label: class name, or ``per image`` if each tile has its own label.
        folder: the scenario's folder, an absolute path.
        tiles: position of each predicted tile on its sheet, from 0 in reading order; excluded tiles are missing.
        sheet_tiles: number of tiles on the sheet, excluded ones included.
        gap: pixels between neighbouring tiles of the sheet.
    """

    id: str
    label: str
    folder: str
    tiles: tuple[int, ...]
    sheet_tiles: int
    gap: int = 0

    @property
    def name(self) -> str:
        """The scenario's id."""
        return self.id


@dataclass(frozen=True, kw_only=True)
class TestSetResult(Verdict):
    """The verdict on the test set; ``flip_sheet`` shows lost images, at most :data:`FLIPS_PER_SET`, a PNG in base64."""

    __test__ = False  # not a test class, whatever pytest's naming pattern says
    kind: ClassVar = "test set"

    flip_sheet: str = ""


@dataclass(frozen=True, kw_only=True)
class OverallResult(Verdict):
    """The verdict on all tiles of several ``scenarios``, by id; ``predictions`` has the tiles in this order."""

    kind: ClassVar = "all scenarios"

    scenarios: tuple[str, ...]
