"""How a correction went, as plain values, ready for JSON."""

from dataclasses import dataclass, field


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
