"""What a model says of scenarios and of the test set: one forward pass an image, in full batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.sharing import Sharing
from pytest_defuse.scenarios.sheets import pixel_hash
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

DIGITS = 4
"""Decimals of a confidence: enough to read, few enough for a small baseline."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of images.

    Attributes:
        images: sha256 of the images.
        predicted: class names, one an image.
        confidences: the softmax probability of that class, in [0, 1], to four decimals.
    """

    images: str
    predicted: tuple[str, ...]
    confidences: tuple[float, ...]


def predict_scenarios(
    subject: Subject, model: Classifier, scenarios: Sequence[Scenario], sharing: Sharing | None = None
) -> dict[str, Predictions | DefuseError]:
    """Run the model on the held-out tiles of scenarios, small ones together in one batch.

    Returns:
        By id; an error where a scenario's label or pictures do not fit the subject.
    """

    def run(part: Sequence[Scenario]) -> dict[str, Any]:
        return _scenario_answers(subject, model, part)

    parts = {
        _key(subject, model, scenarios=[_identity(scenario) for scenario in part]): part
        for part in _full_batches(scenarios, model.batches.size)
    }
    outcomes = (sharing or Sharing()).outcomes({key: _later(run, part) for key, part in parts.items()})
    found = {name: answer for outcome in outcomes for name, answer in outcome.items()}
    return {scenario.id: _decoded(found[scenario.id], subject) for scenario in scenarios}


def predict_test(subject: Subject, model: Classifier, sharing: Sharing | None = None) -> Predictions:
    """Run the model on the subject's test set."""
    images = subject.test_images
    parts = images.pixels.split(4 * model.batches.size)
    keys = [_key(subject, model, test=images.hash, part=number) for number in range(len(parts))]

    def run(pixels: Tensor) -> list[Any]:
        return list(_answers(model, pixels))

    pieces = {key: _later(run, part) for key, part in zip(keys, parts, strict=True)}
    outcomes = (sharing or Sharing()).outcomes(pieces)
    predicted = tuple(subject.classes[index] for indices, _ in outcomes for index in indices)
    return Predictions(images.hash, predicted, tuple(number for _, confidences in outcomes for number in confidences))


def counted_tiles(scenario: Scenario) -> list[int]:
    """Where the held-out tiles that count lie on their sheet, from 0 in reading order."""
    return scenario.record.sheets.held_out.kept


def _full_batches(scenarios: Sequence[Scenario], size: int) -> Iterator[list[Scenario]]:
    """The scenarios in parts of at least ``size`` tiles, so that a part's pictures fit in memory."""
    part: list[Scenario] = []
    tiles = 0
    for scenario in scenarios:
        part.append(scenario)
        tiles += len(counted_tiles(scenario))
        if tiles >= size:
            yield part
            part, tiles = [], 0
    if part:
        yield part


def _scenario_answers(subject: Subject, model: Classifier, scenarios: Sequence[Scenario]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    tiles = {}
    for scenario in scenarios:
        try:
            tiles[scenario.id] = _fitting_tiles(scenario, subject)
        except DefuseError as error:
            answers[scenario.id] = {"error": str(error)}
    if tiles:
        indices, confidences = _answers(model, torch.from_numpy(np.concatenate(list(tiles.values()))))
        start = 0
        for name, pixels in tiles.items():
            end = start + len(pixels)
            answers[name] = {
                "images": pixel_hash(pixels),
                "predicted": indices[start:end],
                "confidences": confidences[start:end],
            }
            start = end
    return answers


def _fitting_tiles(scenario: Scenario, subject: Subject) -> Any:
    label = scenario.record.label
    if scenario.record.labels is not None:
        raise DefuseError(
            f"{scenario.yaml}: each image has its own label (labels: per image), which the gate cannot evaluate yet: "
            "select other scenarios with only=..., or split it by class."
        )
    if label is None or label not in subject.classes:
        raise DefuseError(
            f"{scenario.yaml}: label {label!r} is not a class of subject {subject.name!r}, "
            f"which has: {', '.join(subject.classes)}."
        )
    tiles = scenario.pixels("held_out")
    subject.check_images(torch.from_numpy(tiles), str(scenario.sheet_file("held_out")))
    return tiles


def _answers(model: Classifier, pixels: Tensor) -> tuple[list[int], list[float]]:
    """Class indices and confidences, one an image."""
    with seeded(0):
        confidences, indices = model.logits(pixels).softmax(dim=1).max(dim=1)
    return indices.tolist(), [round(confidence, DIGITS) for confidence in confidences.tolist()]


def _decoded(answer: dict[str, Any], subject: Subject) -> Predictions | DefuseError:
    if "error" in answer:
        return DefuseError(answer["error"])
    predicted = tuple(subject.classes[index] for index in answer["predicted"])
    return Predictions(answer["images"], predicted, tuple(answer["confidences"]))


def _identity(scenario: Scenario) -> tuple[Any, ...]:
    sheet = scenario.record.sheets.held_out
    return scenario.id, sheet.sha256, sheet.excluded, scenario.record.label


def _key(subject: Subject, model: Classifier, **parts: Any) -> str:
    return fingerprint("predictions", subject=subject.name, classes=list(subject.classes), model=model.hash, **parts)


def _later(run: Any, part: Any) -> Any:
    return lambda: run(part)
