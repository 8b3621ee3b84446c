"""A run's results as plain values. They travel as JSON on test reports; every report renders them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pytest_defuse.gate.accuracy import Accuracy
from pytest_defuse.gate.bounds import Outcome


@dataclass(frozen=True)
class ScenarioResult:
    """An accepted scenario held against its bound.

    Attributes:
        folder: the scenario's folder, absolute.
        correct, total: counts over the held-out tiles; ``before`` is the correct count of the uncorrected
            model, in a run that corrects.
        predicted: class names, one a tile.
        images, model: sha256 of the tiles and of the model's weights.
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

    @property
    def accuracy(self) -> Accuracy:
        """The counts as an accuracy."""
        return Accuracy(self.correct, self.total, self.confidence)


@dataclass(frozen=True)
class TestSetResult:
    """Accuracy on the test set; fields as in :class:`ScenarioResult`."""

    __test__ = False

    subject: str
    correct: int
    total: int
    predicted: list[str]
    images: str
    model: str
    before: int | None = None

    @property
    def accuracy(self) -> Accuracy:
        """The counts as an accuracy."""
        return Accuracy(self.correct, self.total)


@dataclass(frozen=True)
class CandidateResult:
    """A candidate scenario as it was stored; ``predicted`` counts what the model says of the held-out tiles."""

    id: str
    folder: str
    proposed_label: str
    predicted: dict[str, int]
    failed: int
    drawn: int


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
    """A failure mode of real images (Barlow), with rates in [0, 1]."""

    subject: str
    group: str
    rule: str
    error_rate: float
    base_error_rate: float
    error_coverage: float
    images: int


Result = ScenarioResult | TestSetResult | DiscoveryResult | CorrectionResult | FailureModeResult
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (ScenarioResult, TestSetResult, DiscoveryResult, CorrectionResult, FailureModeResult)
}


@dataclass(frozen=True)
class Results:
    """All results of a run, each once, in the order in which they came.

    Attributes:
        failed: ids of the tests of a subject that failed, whatever they tested.
    """

    scenarios: list[ScenarioResult] = field(default_factory=list)
    test_sets: list[TestSetResult] = field(default_factory=list)
    discoveries: list[DiscoveryResult] = field(default_factory=list)
    corrections: list[CorrectionResult] = field(default_factory=list)
    failure_modes: list[FailureModeResult] = field(default_factory=list)
    failed: Sequence[str] = ()

    @staticmethod
    def of(items: Iterable[dict[str, Any]], failed: Sequence[str] = ()) -> "Results":
        """Results from their JSON values."""
        results = Results(failed=failed)
        rows: dict[str, list[Any]] = {
            "ScenarioResult": results.scenarios,
            "TestSetResult": results.test_sets,
            "DiscoveryResult": results.discoveries,
            "CorrectionResult": results.corrections,
            "FailureModeResult": results.failure_modes,
        }
        for item in items:
            result = decode(item)
            if result not in rows[type(result).__name__]:
                rows[type(result).__name__].append(result)
        return results

    def __bool__(self) -> bool:
        return any(vars(self).values())


def properties(result: Result) -> list[tuple[str, str]]:
    """What JUnit shows of a result, as names and values."""
    if not isinstance(result, ScenarioResult | TestSetResult):
        return []
    low, high = result.accuracy.interval
    rows = [("defuse_accuracy", f"{result.correct}/{result.total}"), ("defuse_interval", f"{low:.4f} to {high:.4f}")]
    if isinstance(result, ScenarioResult):
        rows += [
            ("defuse_scenario", result.id),
            ("defuse_bound", f"{result.bound:.4f}"),
            ("defuse_outcome", result.outcome),
        ]
    return rows


def encode(result: Result) -> dict[str, Any]:
    """A result as a JSON value."""
    return {"kind": type(result).__name__, **asdict(result)}


def decode(item: dict[str, Any]) -> Any:
    """The result that :func:`encode` made a JSON value of."""
    values = dict(item)
    kind = KINDS[values.pop("kind")]
    if kind is DiscoveryResult:
        values["new"] = [CandidateResult(**entry) for entry in values["new"]]
    if kind is CorrectionResult:
        values["before"] = TrialResult(**values["before"])
        values["trials"] = [TrialResult(**entry) for entry in values["trials"]]
        values["sets"] = [SetResult(**entry) for entry in values.get("sets", [])]
        values["classes"] = [ClassDropResult(**entry) for entry in values.get("classes", [])]
        values["flips"] = [FlipResult(**entry) for entry in values.get("flips", [])]
        values["shifts"] = {name: (pair[0], pair[1]) for name, pair in values["shifts"].items()}
    return kind(**values)
