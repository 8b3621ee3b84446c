"""What an earlier run said of every image, to compare the present run with."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_defuse.gate.predictions import Predictions
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_text

FORMAT = 2


@dataclass(frozen=True)
class SubjectBaseline:
    """What one model said.

    Attributes:
        model: sha256 of the model's weights.
        scenarios: by scenario id, of the held-out tiles that were counted.
        test: of the test set; None where it was not judged.
    """

    model: str
    scenarios: Mapping[str, Predictions]
    test: Predictions | None = None

    @property
    def store(self) -> str:
        """sha256 over the scenarios' ids and images."""
        rows = sorted(f"{name} {predictions.images}" for name, predictions in self.scenarios.items())
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def of_scenario(self, scenario_id: str, images: str, count: int) -> Sequence[str | None]:
        """The class names that the baseline gives to a scenario's images; each None where it has not seen them.

        Args:
            images, count: sha256 and number of the images.

        Raises:
            DefuseError: the baseline is about other images.
        """
        return _matching(self.scenarios.get(scenario_id), images, count, f"scenario {scenario_id}", "the store's")

    def of_test(self, images: str, count: int) -> Sequence[str | None]:
        """The same for the test set."""
        return _matching(self.test, images, count, "the test set", "the subject's")


@dataclass(frozen=True)
class Baseline:
    """A run's predictions, by subject."""

    subjects: Mapping[str, SubjectBaseline] = field(default_factory=dict)

    def of(self, subject: str) -> SubjectBaseline:
        """A subject's part; an empty one where the baseline does not know the subject."""
        return self.subjects.get(subject, SubjectBaseline("", {}))


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline as JSON, a line for each set of images, whole or not at all."""
    subjects = []
    for name, part in sorted(baseline.subjects.items()):
        sets = [*part.scenarios.values(), *([part.test] if part.test else [])]
        classes = sorted({predicted for images in sets for predicted in images.predicted})
        number = {predicted: index for index, predicted in enumerate(classes)}
        rows = [f"   {json.dumps(id_)}: {_row(part.scenarios[id_], number)}" for id_ in sorted(part.scenarios)]
        subjects.append(
            f"  {json.dumps(name)}: {{\n"
            f'   "model": "{part.model}",\n   "store": "{part.store}",\n   "classes": {json.dumps(classes)},\n'
            f'   "test": {_row(part.test, number) if part.test else "null"},\n'
            f'   "scenarios": {{\n' + ",\n".join(rows) + "\n   }\n  }"
        )
    replace_text(path, f'{{\n "format": {FORMAT},\n "subjects": {{\n' + ",\n".join(subjects) + "\n }\n}\n")


def load_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        DefuseError: the file cannot be read, is no baseline of this format, or was edited.
    """
    anew = f"make it anew with --defuse-save-baseline {path}"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("format", FORMAT) != FORMAT:
            raise DefuseError(
                f"{path} has baseline format {data['format']}, this pytest-defuse reads format {FORMAT}: {anew}."
            )
        document = _Document.model_validate(data)
        parts = {name: _part(subject) for name, subject in document.subjects.items()}
        if any(parts[name].store != subject.store for name, subject in document.subjects.items()):
            raise DefuseError(f"{path} was changed by hand or by a merge: {anew}.")
    except OSError as error:
        raise DefuseError(
            f"The baseline {path} cannot be read ({error.strerror}): make it with --defuse-save-baseline {path}."
        ) from error
    except (ValidationError, ValueError, IndexError, RecursionError) as error:
        raise DefuseError(f"{path} is not a baseline: {anew}.") from error
    return Baseline(parts)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Images(_Strict):
    images: str
    predicted: list[int]
    confidences: list[float]


class _Subject(_Strict):
    model: str
    store: str
    classes: list[str]
    test: _Images | None
    scenarios: dict[str, _Images]


class _Document(_Strict):
    format: Literal[2]
    subjects: dict[str, _Subject]


def _row(predictions: Predictions, number: Mapping[str, int]) -> str:
    return json.dumps(
        {
            "images": predictions.images,
            "predicted": [number[name] for name in predictions.predicted],
            "confidences": predictions.confidences,
        },
        separators=(",", ":"),
    )


def _part(subject: _Subject) -> SubjectBaseline:
    def read(entry: _Images) -> Predictions:
        if not entry.predicted or min(entry.predicted) < 0 or len(entry.predicted) != len(entry.confidences):
            raise ValueError("an entry has a class and a confidence for each of its images")
        return Predictions(entry.images, tuple(subject.classes[i] for i in entry.predicted), tuple(entry.confidences))

    scenarios = {name: read(entry) for name, entry in subject.scenarios.items()}
    return SubjectBaseline(subject.model, scenarios, read(subject.test) if subject.test else None)


def _matching(known: Predictions | None, images: str, count: int, what: str, whose: str) -> Sequence[str | None]:
    if known is None:
        return [None] * count
    if known.images != images:
        raise DefuseError(
            f"The baseline's images of {what} are not {whose}: save the baseline anew with "
            "--defuse-save-baseline on the commit to compare with."
        )
    return known.predicted
