"""Images that the baseline had right and this model has wrong."""

from dataclasses import dataclass

from pytest_defuse.gate.results import FLIPS_SHOWN, ScenarioResult, TestSetResult
from pytest_defuse.report.results import Results
from pytest_defuse.report.words import name_of


@dataclass(frozen=True)
class Flip:
    """One such image.

    Attributes:
        name: what it belongs to, a scenario's id or a test set.
        number: which it is there, from 0: a scenario's tile on its sheet, or a place in the test set.
        label, predicted: class names, what it shows and what the model says now.
        confidence: of that, in words; empty where it is not known.
    """

    name: str
    number: int
    label: str
    predicted: str
    confidence: str


def flips(results: Results) -> list[Flip]:
    """The flips of all scenarios and test sets, at most :data:`FLIPS_SHOWN` of each."""
    return [flip for judged in results.sets for flip in flips_of(judged)]


def flips_of(judged: ScenarioResult | TestSetResult) -> list[Flip]:
    """The first :data:`FLIPS_SHOWN` flips of one set of images."""
    lost = judged.comparison.lost[:FLIPS_SHOWN] if judged.comparison else []
    places = judged.tiles if isinstance(judged, ScenarioResult) else range(judged.total)
    return [
        Flip(
            name=name_of(judged),
            number=places[at],
            label=judged.label if isinstance(judged, ScenarioResult) else judged.labels[at],
            predicted=judged.predicted[at],
            confidence=f"{judged.confidences[at]:.0%}" if judged.confidences else "",
        )
        for at in lost
    ]
