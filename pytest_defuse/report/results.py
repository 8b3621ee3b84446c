"""A run's results as plain values. They travel as JSON on test reports; every report renders them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

from pydantic import TypeAdapter

from pytest_defuse.gate.accuracy import Accuracy
from pytest_defuse.gate.bounds import Outcome
from pytest_defuse.gate.checks import Check, Comparison

FLIPS_SHOWN = 64


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


@dataclass(frozen=True)
class NoveltyResult:
    """Pictures of a region, each with the nearest training image that the model gets wrong.

    Attributes:
        tiles: which held-out tiles; the other lists go with them.
        labels, predicted: class names of the training images.
        distances: root mean square over pixels in [0, 1].
        sheet: the training images as one contact sheet, a PNG in base64.
        width, height: of a tile, in pixels.
    """

    tiles: list[int]
    labels: list[str]
    predicted: list[str]
    distances: list[float]
    sheet: str
    width: int
    height: int


@dataclass(frozen=True)
class CandidateResult:
    """A candidate scenario as it was stored.

    Attributes:
        predicted: counts what the model says of the held-out tiles.
        facts: what a reviewer should know, a sentence each.
    """

    id: str
    folder: str
    proposed_label: str
    predicted: dict[str, int]
    failed: int
    drawn: int
    facts: list[str] = field(default_factory=list)
    novelty: NoveltyResult | None = None


@dataclass(frozen=True)
class LatentMapResult:
    """Training images, failures and candidates in the plane.

    Attributes:
        labels: class names of the training images that are shown.
        failures: how many failures are shown.
        candidates: the errors whose regions are shown, such as ``2 as 3``.
        projections: by name of the method, points of the training images, the failures and the regions'
            means, in this order, in thousandths of the map's larger side.
    """

    labels: list[str]
    failures: int
    candidates: list[str]
    projections: dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class DiscoveryResult:
    """What a discovery found: candidates that are new to the store, and ids that it knew already."""

    subject: str
    accuracy: float
    reconstruction_accuracy: float
    judge_accuracies: list[float]
    failures: int
    regions: int
    new: list[CandidateResult]
    known: list[str]
    seconds: float
    latent_map: LatentMapResult | None = None


@dataclass(frozen=True)
class TrialResult:
    """One finetuned model: accuracies in [0, 1]; scenario accuracies are on correction tiles.

    Attributes:
        weight: lambda; 0 is the control, more training alone.
        alpha: how far from the old weights (0) to the finetuned ones (1).
        health: mean accuracy on validation images and their shifted copies.
        role: ``control``, ``chosen``, both or neither.
    """

    weight: float
    validation: float
    worst_scenario: float
    mean_scenario: float
    rate: float = 0.0
    epochs: int = 0
    alpha: float = 1.0
    health: float | None = None
    role: str = ""


@dataclass(frozen=True)
class SetResult:
    """How many of ``total`` images the old model, the control and the corrected one get right.

    Attributes:
        kind: ``test set``, ``shifted copy`` (of it), ``shift set`` or ``scenario`` (held-out tiles).
    """

    name: str
    kind: str
    total: int
    before: int
    control: int
    after: int


@dataclass(frozen=True)
class ClassDropResult:
    """Test images of one class: ``lost`` were right and are wrong, ``won`` the reverse."""

    label: str
    total: int
    lost: int
    won: int


@dataclass(frozen=True)
class FlipResult:
    """A test image that the correction lost or won (``kind``), with its picture, a PNG in base64."""

    kind: str
    index: int
    label: str
    before: str
    after: str
    picture: str


@dataclass(frozen=True)
class CorrectionResult:
    """How a correction went.

    Attributes:
        chosen: the lambda of the model that the gate judged.
        shifts: name of a shift set -> (accuracy before, accuracy after).
        output: the file that was written, absolute.
        problems: bounds that do not hold, in sentences; empty when ``output`` is the corrected checkpoint.
        sets: everything that the choice did not see: before, control, after.
        classes: the test set by class, the largest loss first.
        lost, won: test images that were right and are wrong, and the reverse; ``flips`` shows the first.
        found: what a discovery on the corrected model found, in sentences.
        images: training and scenario images that went forward and backward, each time counted.
    """

    subject: str
    validation_source: str
    before: TrialResult
    trials: list[TrialResult]
    chosen: float
    shifts: dict[str, tuple[float, float]]
    output: str
    problems: list[str]
    seconds: float
    sets: list[SetResult] = field(default_factory=list)
    classes: list[ClassDropResult] = field(default_factory=list)
    lost: int = 0
    won: int = 0
    flips: list[FlipResult] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    images: int = 0


@dataclass(frozen=True)
class FailureModeResult:
    """A failure mode of real images (Barlow), with rates in [0, 1] and the 95% interval of the error rate."""

    group: str
    rule: str
    error_rate: float
    base_error_rate: float
    error_coverage: float
    images: int
    interval: tuple[float, float]


@dataclass(frozen=True)
class NodeResult:
    """A node of a failure tree and those below it.

    Attributes:
        condition: the last step of the path to it; empty at the root.
        failures, images, group_failures: counts, of those images that did not grow the tree.
        rates: ER, EC and IV with their 95% intervals, in words.
        reported: whether it is a failure mode.
        figure: a PNG in base64, or empty.
    """

    condition: str
    failures: int
    images: int
    group_failures: int
    rates: list[str]
    reported: bool
    figure: str
    children: "list[NodeResult]"


@dataclass(frozen=True)
class TreeResult:
    """The tree of a group that has a failure mode; ALER with its 95% interval."""

    group: str
    base_error_rate: float
    aler: float
    aler_interval: tuple[float, float]
    root: NodeResult


@dataclass(frozen=True)
class ExplanationResult:
    """What an explanation found on real images (Barlow).

    Attributes:
        features: which features the rules are about, in words; ``key`` is what their names are kept under.
        groups: how many were looked into; ``passed_over`` had too few failures.
        modes: most important first.
        trees: of the groups that have one.
        new, known: candidates of the modes, in a session that discovers.
    """

    subject: str
    features: str
    key: str
    groups: int
    passed_over: int
    modes: list[FailureModeResult]
    trees: list[TreeResult]
    new: list[CandidateResult] = field(default_factory=list)
    known: list[str] = field(default_factory=list)


Judged = ScenarioResult | TestSetResult | OverallResult
Result = Judged | DiscoveryResult | CorrectionResult | ExplanationResult
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (ScenarioResult, TestSetResult, OverallResult, DiscoveryResult, CorrectionResult, ExplanationResult)
}


@dataclass(frozen=True)
class Results:
    """All results of a run, each once, in the order in which they came.

    Attributes:
        failed: ids of the tests of a subject that failed, whatever they tested.
        notices: sentences about the run as a whole, such as scenarios that no test touches.
        arguments: what must stand behind ``pytest`` to measure the same again.
    """

    scenarios: list[ScenarioResult] = field(default_factory=list)
    test_sets: list[TestSetResult] = field(default_factory=list)
    discoveries: list[DiscoveryResult] = field(default_factory=list)
    corrections: list[CorrectionResult] = field(default_factory=list)
    explanations: list[ExplanationResult] = field(default_factory=list)
    overall: list[OverallResult] = field(default_factory=list)
    failed: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    @staticmethod
    def of(
        items: Iterable[dict[str, Any]],
        failed: Sequence[str] = (),
        notices: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> "Results":
        """Results from their JSON values."""
        results = Results(failed=tuple(failed), notices=tuple(notices), arguments=tuple(arguments))
        rows: dict[str, list[Any]] = {
            "ScenarioResult": results.scenarios,
            "TestSetResult": results.test_sets,
            "OverallResult": results.overall,
            "DiscoveryResult": results.discoveries,
            "CorrectionResult": results.corrections,
            "ExplanationResult": results.explanations,
        }
        for item in items:
            result = decode(item)
            if result not in rows[type(result).__name__]:
                rows[type(result).__name__].append(result)
        return results

    @property
    def judged(self) -> list[Judged]:
        """What was held against bounds: scenarios, all of them together, test sets."""
        return [*self.scenarios, *self.overall, *self.test_sets]

    @property
    def sets(self) -> list[ScenarioResult | TestSetResult]:
        """What has pictures of its own: scenarios and test sets."""
        return [*self.scenarios, *self.test_sets]

    def __iter__(self) -> Iterator[Result]:
        return chain(self.judged, self.corrections, self.discoveries, self.explanations)

    def __bool__(self) -> bool:
        return bool(self.failed) or any(True for _ in self)


def properties(result: Result) -> list[tuple[str, str]]:
    """What JUnit shows of a result, as names and values."""
    if not isinstance(result, Judged):
        return []
    low, high = result.accuracy.interval
    rows = [("defuse_accuracy", f"{result.correct}/{result.total}"), ("defuse_interval", f"{low:.4f} to {high:.4f}")]
    if isinstance(result, ScenarioResult):
        rows.append(("defuse_scenario", result.id))
    if result.comparison is not None:
        rows.append(("defuse_flips", str(len(result.comparison.lost))))
        rows.append(("defuse_mcnemar_p", f"{result.comparison.p:.4g}"))
    return [*rows, ("defuse_bound", f"{result.bound:.4f}"), ("defuse_outcome", result.outcome)]


def encode(result: Result) -> dict[str, Any]:
    """A result as a JSON value."""
    kind = type(result).__name__
    return {"kind": kind, **_adapter(kind).dump_python(result)}


def decode(item: dict[str, Any]) -> Any:
    """The result that :func:`encode` made a JSON value of."""
    values = dict(item)
    return _adapter(values.pop("kind")).validate_python(values)


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind])
