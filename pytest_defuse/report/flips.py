"""Images that the baseline classifies correctly and this model does not."""

from dataclasses import dataclass

from pytest_defuse.gate.results import FLIPS_SHOWN, ScenarioResult, TestSetResult
from pytest_defuse.report.results import Results


@dataclass(frozen=True)
class Flip:
    """One such image.

    Attributes:
        name: of its set of images, a scenario's id or a test set.
        number: position in that set from 0: of a scenario's tile on its sheet, of a test image in the test set.
        label, predicted: class names.
        confidence: of the prediction, in words; empty if unknown.
    """

    name: str
    number: int
    label: str
    predicted: str
    confidence: str


def flips(results: Results) -> list[Flip]:
    """The flips of all scenarios and test sets, at most :data:`FLIPS_SHOWN` per set."""
    return [flip for verdict in results.sets for flip in flips_of(verdict)]


def flips_of(verdict: ScenarioResult | TestSetResult) -> list[Flip]:
    """The first :data:`FLIPS_SHOWN` flips of one set of images."""
    predictions = verdict.predictions
    lost = verdict.comparison.lost[:FLIPS_SHOWN] if verdict.comparison else []
    numbers = verdict.tiles if isinstance(verdict, ScenarioResult) else range(verdict.total)
    return [
        Flip(
            name=verdict.name,
            number=numbers[index],
            label=predictions.labels[index],
            predicted=predictions.predicted[index],
            confidence=f"{predictions.confidences[index]:.0%}" if predictions.confidences else "",
        )
        for index in lost
    ]
