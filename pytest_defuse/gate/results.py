"""What the gate says of a model, as plain values, ready for JSON."""

from dataclasses import dataclass, field

from pytest_defuse.gate.checks import Check, Comparison
from pytest_defuse.scenarios.bounds import Outcome
from pytest_defuse.statistics.accuracy import Accuracy

FLIPS_SHOWN = 64
"""Flipped test images that a report shows: eight rows of eight."""


@dataclass(frozen=True)
class ScenarioResult:
    """An accepted scenario held against its bounds.

    Attributes:
        folder: the scenario's folder, absolute.
        correct, total: counts over the held-out tiles; ``before`` is the correct count of the uncorrected
            model, in a run that corrects.
        confidence: that of every interval, in (0, 1).
        outcome: the worst of the ``checks``; ``bound`` is the accuracy that the strictest of them asks for,
            ``reason`` where it comes from.
        predicted: class names, one a tile.
        images, model: sha256 of the tiles and of the model's weights.
        confidences: the model's softmax probability of what it predicted, one a tile.
        tiles: each counted tile's place on the sheet, from 0 in reading order.
        sheet_tiles: how many the sheet has, also those that are not counted.
        checks: every bound, one by one.
        comparison: with the baseline, where it has this scenario; positions in it point into ``predicted``.
    """

    subject: str
    id: str
    label: str
    folder: str
    correct: int
    total: int
    confidence: float
    outcome: Outcome
    bound: float
    reason: str
    predicted: list[str]
    images: str
    model: str
    before: int | None = None
    confidences: list[float] = field(default_factory=list)
    tiles: list[int] = field(default_factory=list)
    sheet_tiles: int = 0
    checks: list[Check] = field(default_factory=list)
    comparison: Comparison | None = None

    @property
    def accuracy(self) -> Accuracy:
        """The counts as an accuracy."""
        return Accuracy(self.correct, self.total, self.confidence)


@dataclass(frozen=True)
class TestSetResult:
    """The test set held against the bounds of its test; fields as in :class:`ScenarioResult`.

    Attributes:
        labels: class names, one an image.
        flip_sheet: a PNG in base64, the first :data:`FLIPS_SHOWN` images of ``comparison.lost`` as a contact
            sheet (as :func:`~pytest_defuse.scenarios.sheets.encode_sheet` lays it out); empty without flips.
    """

    __test__ = False

    subject: str
    correct: int
    total: int
    predicted: list[str]
    images: str
    model: str
    before: int | None = None
    confidence: float = 0.95
    outcome: Outcome = "holds"
    bound: float = 0.0
    reason: str = ""
    labels: list[str] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    comparison: Comparison | None = None
    flip_sheet: str = ""

    @property
    def accuracy(self) -> Accuracy:
        """The counts as an accuracy."""
        return Accuracy(self.correct, self.total, self.confidence)


@dataclass(frozen=True)
class OverallResult:
    """All scenarios of a subject together, held against bounds; fields as in :class:`ScenarioResult`.

    Attributes:
        scenarios: their ids. What was predicted is in their own results; positions in ``comparison`` count
            through their tiles in this order.
        labels, predicted: class names, one a tile.
    """

    subject: str
    scenarios: list[str]
    correct: int
    total: int
    confidence: float
    outcome: Outcome
    bound: float
    reason: str
    labels: list[str]
    predicted: list[str]
    model: str
    before: int | None = None
    checks: list[Check] = field(default_factory=list)
    comparison: Comparison | None = None

    @property
    def accuracy(self) -> Accuracy:
        """The counts as an accuracy."""
        return Accuracy(self.correct, self.total, self.confidence)
