"""A correction in a report: its notes, and the trade-off between the accuracies of its trials as a figure."""

from dataclasses import dataclass

from pytest_defuse.correct.results import CorrectionResult, TrialResult

WIDTH, HEIGHT, MARGIN = 460, 300, 48
"""Of the figure, in pixels; its margin contains the axes' labels. Our choice."""
NAME = 56, 12
"""Maximum width and height of a point's name, in pixels: ten characters of 11 pixels. Our choice."""


def correction_notes(result: CorrectionResult) -> list[str]:
    """Remarks on the tables."""
    notes = []
    if result.sets:
        notes += [
            "the trial was chosen on validation images, their shifted copies and correction tiles; held-out tiles, the "
            "test set, shifted copies of it and shift sets were evaluated once, afterwards",
            f"test images that were correct and are wrong: {result.lost}; the reverse: {result.gained}",
        ]
    if result.image_passes:
        passes = f"{result.image_passes:,} images passed forward and backward, the control's included"
        evaluated = f"{result.forward_passes:,} forward only, to evaluate" if result.forward_passes else ""
        notes.append(", ".join(filter(None, (passes, evaluated))))
    return notes + result.notes


def tradeoff_mermaid(result: CorrectionResult) -> str:
    """Validation and scenario accuracy of the trials as a Mermaid chart, which GitHub draws; empty for one trial."""
    models = sorted(_models(result), key=lambda model: model.trial.mean_scenario)
    if len(models) < 2:
        return ""
    names = ", ".join(f'"{model.name}"' for model in models)
    validation = ", ".join(f"{100 * model.trial.validation:.1f}" for model in models)
    scenarios = ", ".join(f"{100 * model.trial.mean_scenario:.1f}" for model in models)
    lines = (
        "```mermaid",
        "xychart-beta",
        '    title "Accuracy in percent: validation images (first line), correction tiles (second)"',
        f"    x-axis [{names}]",
        '    y-axis "accuracy" 0 --> 100',
        f"    line [{validation}]",
        f"    line [{scenarios}]",
        "```",
    )
    return "\n".join(lines)


@dataclass(frozen=True)
class Point:
    """A model's place in the figure, in pixels; ``named`` unless its name would overlap another."""

    name: str
    x: float
    y: float
    chosen: bool
    named: bool


@dataclass(frozen=True)
class Tradeoff:
    """The values with which the template draws the figure.

    Attributes:
        line: the places of models interpolated between old and new weights, in order; may be empty.
        left, low, high: accuracies at the ends of the axes; the first axis ends at 1.
    """

    points: list[Point]
    line: list[tuple[float, float]]
    left: float
    low: float
    high: float


def tradeoff(result: CorrectionResult) -> Tradeoff:
    """Validation accuracy over accuracy on correction tiles, for each lambda and alpha (Defuse, figure 5)."""
    models = _models(result)
    low, high = (extreme(model.trial.validation for model in models) for extreme in (min, max))
    low, high = low - 0.1 * (high - low) - 0.001, high + 0.1 * (high - low) + 0.001
    left = min(model.trial.mean_scenario for model in models)
    left -= 0.05 * (1 - left) + 0.001

    def place(trial: TrialResult) -> tuple[float, float]:
        across, up = (trial.mean_scenario - left) / (1 - left), (trial.validation - low) / (high - low)
        return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)

    points: list[Point] = []
    for model in sorted(models, key=lambda model: "chosen" not in model.trial.role):
        x, y = place(model.trial)
        # Of two names that would overlap, the second is only in its circle's tooltip.
        named = all(abs(x - p.x) > NAME[0] or abs(y - p.y) > NAME[1] for p in points if p.named)
        points.append(Point(model.name, x, y, "chosen" in model.trial.role, named))
    line = sorted((model.trial for model in models if model.interpolated), key=lambda trial: trial.alpha)
    return Tradeoff(points, [place(trial) for trial in line], left, low, high)


@dataclass(frozen=True)
class _Model:
    name: str
    trial: TrialResult
    interpolated: bool


def _models(result: CorrectionResult) -> list[_Model]:
    """The uncorrected model, the last epoch of every lambda, and models interpolated between old and new weights."""
    last = {(trial.lambda_, trial.learning_rate, trial.alpha): trial for trial in result.trials}
    between = {(lambda_, rate) for lambda_, rate, alpha in last if alpha < 1}
    models = [_Model("before", result.before, bool(between))]
    for (lambda_, rate, alpha), trial in last.items():
        name = f"{lambda_:g}" + ("" if alpha == 1 else f" at {alpha:g}")
        models.append(_Model(name, trial, (lambda_, rate) in between))
    return models
