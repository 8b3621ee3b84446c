"""A model's predictions on scenarios and on the test set: one forward pass per image, in full batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.sharing import Sharing
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import Split
from pytest_defuse.scenarios.sheets import Pixels, pixel_hash
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

DIGITS = 4
"""Decimals of a stored confidence: 0.01% is finer than reports show, and keeps a baseline small. Our choice."""
BATCHES_PER_PART = 4
"""Batches of the test set that one process takes at a time: few parts to lock, enough for all workers to share.
Our choice."""
ScoredRows = Sequence[tuple[int, float]]
"""Class index and confidence, one per image."""
COLUMNS = ("predicted", "confidences", "labels", "baseline")
"""Fields of :class:`LabelledPredictions` with one value per image."""


@dataclass(frozen=True)
class Predictions:
    """A model's predictions on images.

    Attributes:
        sha256: of the images.
        predicted: class names, one per image.
        confidences: softmax probability of the predicted class, in [0, 1], to four decimals; one per image.
    """

    sha256: str
    predicted: tuple[str, ...]
    confidences: tuple[float, ...]


@dataclass(frozen=True)
class LabelledPredictions(Predictions):
    """Predictions with labels, and earlier results on the same images.

    Attributes:
        baseline: the class names that the baseline predicts; None for an image that it does not contain.
        same_model: whether the baseline is from the same model.
        recorded: accuracy when the images were found, in [0, 1]; None if it was not recorded.
        base_error_rate: of the group that the images are a failure mode of, in [0, 1]; None for other images.
        not_in_baseline: whether there is a baseline, and it contains none of the images.
    """

    labels: tuple[str, ...]
    baseline: tuple[str | None, ...]
    same_model: bool = False
    recorded: float | None = None
    base_error_rate: float | None = None
    not_in_baseline: bool = False

    @property
    def total(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def correct(self) -> int:
        """Number of images whose predicted class is their label."""
        return sum(map(str.__eq__, self.labels, self.predicted))

    @property
    def changed(self) -> int:
        """Number of images for which the baseline predicts another class."""
        return sum(other not in (None, own) for own, other in zip(self.predicted, self.baseline, strict=True))

    @property
    def repeated(self) -> bool:
        """Whether the baseline is from the same model, and predicts the same classes."""
        return self.same_model and not self.changed

    def of_class(self, name: str) -> "LabelledPredictions":
        """Those of the images with one label."""
        chosen = [label == name for label in self.labels]
        columns: dict[str, Any] = {column: tuple(compress(getattr(self, column), chosen)) for column in COLUMNS}
        return replace(self, recorded=self.recorded if all(chosen) else None, **columns)


def predict_scenarios(
    subject: Subject, model: Classifier, scenarios: Sequence[Scenario], sharing: Sharing | None = None
) -> dict[str, Predictions | DefuseError]:
    """Run the model on the held-out tiles of scenarios; the tiles of small scenarios share batches.

    Returns:
        By scenario id; an error for a scenario whose classes or sheet do not fit the subject.
    """
    parts = {
        _key(subject, model, scenarios=[_identity(scenario) for scenario in part]): partial(
            _predict_part, subject, model, part
        )
        for part in _full_batches(scenarios, model.batches.size)
    }
    values = {name: value for result in (sharing or Sharing()).results(parts) for name, value in result.items()}
    return {scenario.id: _from_json(values[scenario.id], subject) for scenario in scenarios}


def predict_test(subject: Subject, model: Classifier, sharing: Sharing | None = None) -> Predictions:
    """Run the model on the subject's test set."""
    images = subject.test_images
    parts = {
        _key(subject, model, test=images.hash, part=number): partial(_predict, model, part)
        for number, part in enumerate(images.pixels.split(BATCHES_PER_PART * model.batches.size))
    }
    rows = [row for result in (sharing or Sharing()).results(parts) for row in result]
    return _predictions(images.hash, rows, subject)


def _full_batches(scenarios: Sequence[Scenario], size: int) -> Iterator[list[Scenario]]:
    """Split scenarios into parts of at least ``size`` tiles, so that only one part is in memory at a time."""
    part: list[Scenario] = []
    for scenario in scenarios:
        part.append(scenario)
        if sum(len(other.record.sheets.held_out.kept) for other in part) >= size:
            yield part
            part = []
    if part:
        yield part


def _predict_part(subject: Subject, model: Classifier, scenarios: Sequence[Scenario]) -> dict[str, Any]:
    """Predictions of scenarios as JSON values, which processes can share; by scenario id."""
    values: dict[str, Any] = {}
    tiles = {}
    for scenario in scenarios:
        try:
            tiles[scenario.id] = checked_tiles(scenario, subject, "held_out")
        except DefuseError as error:
            values[scenario.id] = {"error": str(error)}
    if tiles:
        rows = iter(_predict(model, torch.from_numpy(np.concatenate(list(tiles.values())))))
        for name, pixels in tiles.items():
            values[name] = {"sha256": pixel_hash(pixels), "rows": list(islice(rows, len(pixels)))}
    return values


def checked_tiles(scenario: Scenario, subject: Subject, split: Split) -> Pixels:
    """The tiles of a split without excluded ones, uint8 N x C x H x W.

    Raises:
        DefuseError: the sheet cannot be read, or its tiles or the store's classes do not fit the subject.
    """
    store = scenario.folder.parent / "store.yaml"
    subject.check_classes(scenario.classes, str(store), "change the classes in this file")
    tiles = scenario.pixels(split)
    subject.check_images(torch.from_numpy(tiles), str(scenario.sheet_file(split)))
    return tiles


def _predict(model: Classifier, pixels: Tensor) -> ScoredRows:
    with seeded(0, model.device):  # a model that draws random numbers gets the same ones in every run
        confidences, indices = model.logits(pixels).softmax(dim=1).max(dim=1)
    return [(index, round(value, DIGITS)) for index, value in zip(indices.tolist(), confidences.tolist(), strict=True)]


def _from_json(value: dict[str, Any], subject: Subject) -> Predictions | DefuseError:
    return DefuseError(value["error"]) if "error" in value else _predictions(value["sha256"], value["rows"], subject)


def _predictions(sha256: str, rows: ScoredRows, subject: Subject) -> Predictions:
    return Predictions(
        sha256, tuple(subject.classes[index] for index, _ in rows), tuple(confidence for _, confidence in rows)
    )


def _identity(scenario: Scenario) -> tuple[Any, ...]:
    sheet = scenario.record.sheets.held_out
    return scenario.id, sheet.sha256, sheet.excluded, scenario.record.label, scenario.record.machine


def _key(subject: Subject, model: Classifier, **parts: Any) -> str:
    return fingerprint(
        "predictions", subject=subject.name, classes=list(subject.classes), model=model.fingerprint, **parts
    )
