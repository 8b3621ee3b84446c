"""The baseline: an earlier run's predictions on every image, which later runs are compared with."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from pytest_defuse.gate.predictions import Predictions
from pytest_defuse.gate.results import Logits, ModelResult, ScenarioResult, TestSetResult
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import remove_leftovers, replace_text
from pytest_defuse.runtime.fingerprint import agree
from pytest_defuse.runtime.json_text import check_json_size, parse_json, read_text
from pytest_defuse.runtime.validation import first_invalid_value, shortened
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

FORMAT = 3
"""Format 1 had no confidences; format 2, which is still read, identifies a model by the hash of its weights."""


@dataclass(frozen=True)
class SubjectBaseline:
    """The predictions of one model.

    Attributes:
        model: the fingerprint of the model's identity; in format 2 the hash of its weights.
        scenarios: predictions on the held-out tiles that are not excluded, by scenario id.
        test: predictions on the test set; None if no test evaluated it.
        logits: the model's outputs for the fixed images; None in format 2, and if the sets are from several models.
        classes: names, in the order of the logits; empty if a file does not have them in this order.
        first_run: whether images that it does not contain are accepted, as with ``--defuse-first-run``.
    """

    model: str
    scenarios: Mapping[str, Predictions]
    test: Predictions | None = None
    logits: Logits | None = None
    classes: tuple[str, ...] = ()
    first_run: bool = False

    def same_model(self, model: Classifier) -> bool:
        """Whether these are predictions of this model; format 2 compares the weights only."""
        if self.logits is None:
            return self.model != "" and self.model == model.hash
        return self.model == model.fingerprint and agree(model.identity.outputs, torch.tensor(self.logits))

    def updated(self, other: "SubjectBaseline") -> "SubjectBaseline":
        """These predictions with those of ``other`` in their place; sets that ``other`` lacks stay.

        Raises:
            DefuseError: sets stay whose model has other classes, or the same in another order.
        """
        scenarios, test = {**self.scenarios, **other.scenarios}, other.test or self.test
        replaced = scenarios == other.scenarios and test == other.test
        if not replaced and self.classes != other.classes[: len(self.classes)]:
            raise DefuseError(
                "The file that --defuse-save-baseline names is a baseline of other classes, or of another order: "
                "remove it, and save a new one."
            )
        classes = other.classes if replaced or self.classes else ()
        if replaced or self.model == other.model:
            return SubjectBaseline(other.model, scenarios, test, other.logits, classes)
        return SubjectBaseline("", scenarios, test, classes=classes)  # of several models

    @property
    def contains_sets(self) -> bool:
        """Whether there is any prediction."""
        return bool(self.scenarios or self.test)

    @property
    def store(self) -> str:
        """sha256 over the scenarios' ids and images."""
        rows = sorted(f"{name} {predictions.sha256}" for name, predictions in self.scenarios.items())
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def of_scenario(self, scenario_id: str, sha256: str, count: int) -> tuple[str | None, ...]:
        """The class names predicted for ``count`` images of a scenario; all None if it is not in the baseline."""
        return _matching(self.scenarios.get(scenario_id), sha256, count, f"scenario {scenario_id}", "the store's")

    def of_test(self, sha256: str, count: int) -> tuple[str | None, ...]:
        """The class names predicted for the test set; see :meth:`of_scenario`."""
        return _matching(self.test, sha256, count, "the test set", "the subject's")


NO_BASELINE = SubjectBaseline("", {})
"""The baseline that contains no image, of no model."""


@dataclass(frozen=True)
class Baseline:
    """The predictions of a run, by subject."""

    subjects: Mapping[str, SubjectBaseline] = field(default_factory=dict)

    @staticmethod
    def of_run(
        models: Sequence[ModelResult], scenarios: Sequence[ScenarioResult], test_sets: Sequence[TestSetResult]
    ) -> "Baseline":
        """The baseline of a run's results."""
        tests = {verdict.subject: verdict.predictions for verdict in test_sets}
        parts = {}
        for model in models:
            own = {scenario.id: scenario.predictions for scenario in scenarios if scenario.subject == model.subject}
            test = tests.get(model.subject)
            parts[model.subject] = SubjectBaseline(model.fingerprint, own, test, model.logits, model.classes)
        return Baseline(parts)

    def of(self, subject: str) -> SubjectBaseline:
        """The part of one subject; empty if the baseline does not contain the subject."""
        return self.subjects.get(subject, NO_BASELINE)

    def updated(self, other: "Baseline") -> "Baseline":
        """This baseline, its sets replaced by those of ``other``; sets that ``other`` lacks stay."""
        return Baseline(
            {**self.subjects, **{name: self.of(name).updated(part) for name, part in other.subjects.items()}}
        )


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline as JSON, one line per set of images; a failed write leaves an existing file unchanged.

    What a killed run left beside the file is removed.
    """
    subjects = []
    for name, part in sorted(baseline.subjects.items()):
        sets = [*part.scenarios.values(), *([part.test] if part.test else [])]
        classes = part.classes or sorted({predicted for images in sets for predicted in images.predicted})
        number = {predicted: index for index, predicted in enumerate(classes)}
        rows = [f"   {json.dumps(id_)}: {_row(part.scenarios[id_], number)}" for id_ in sorted(part.scenarios)]
        subjects.append(
            f"  {json.dumps(name)}: {{\n"
            f'   "model": "{part.model}",\n   "logits": {json.dumps(part.logits)},\n'
            f'   "store": "{part.store}",\n   "classes": {json.dumps(classes)},\n'
            f'   "all_classes": {json.dumps(bool(part.classes))},\n'
            f'   "test": {_row(part.test, number) if part.test else "null"},\n'
            f'   "scenarios": {{\n' + ",\n".join(rows) + "\n   }\n  }"
        )
    text = f'{{\n "format": {FORMAT},\n "subjects": {{\n' + ",\n".join(subjects) + "\n }\n}\n"
    check_json_size(len(text), path)  # it is ASCII
    remove_leftovers(path)
    replace_text(path, text)


def load_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        DefuseError: the file cannot be read, is not a baseline, has another format, or was edited.
    """
    remedy = f"remove it, and make a new one with --defuse-save-baseline {path}"
    try:
        missing = f"make it with --defuse-save-baseline {path}; --defuse-first-run accepts that there is none yet"
        data = parse_json(read_text(path, missing))
        number = data.get("format", FORMAT) if isinstance(data, dict) else FORMAT
        if number not in (2, FORMAT):
            reads = f"this pytest-defuse reads formats 2 and {FORMAT}"
            raise DefuseError(f"{path} has baseline format {shortened(str(number))}, {reads}: {remedy}.")
        document = _Document.model_validate(data)
        parts = {name: _part(subject) for name, subject in document.subjects.items()}
        if any(parts[name].store != subject.store for name, subject in document.subjects.items()):
            raise DefuseError(f"{path} was changed by hand or by a merge: {remedy}.")
    except ValidationError as error:
        raise DefuseError(f"{path} is not a baseline: {remedy} ({first_invalid_value(error)}).") from error
    except (ValueError, IndexError) as error:
        raise DefuseError(f"{path} is not a baseline: {remedy} ({error}).") from error
    return Baseline(parts)


def subject_baseline(path: Path, subject: Subject, first_run: bool = False) -> SubjectBaseline:
    """Read the part of one subject.

    Raises:
        DefuseError: the file cannot be read, has other classes, or lacks the subject, and this is no first run.
    """
    baseline, again = load_baseline(path), f"with --defuse-save-baseline {path}"
    if subject.name not in baseline.subjects and not first_run:
        raise DefuseError(
            f"{path} is a baseline of {', '.join(map(repr, baseline.subjects)) or 'no subject'}, not of "
            f"{subject.name!r}: correct the subject's name, or add the subject {again} on the commit to compare with; "
            "--defuse-first-run accepts that it is not there yet."
        )
    part = baseline.of(subject.name)
    subject.check_classes(part.classes, str(path), f"save a new one {again}")
    return replace(part, first_run=first_run)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Images(_Strict):
    images: str
    predicted: Annotated[list[NonNegativeInt], Field(min_length=1, fail_fast=True)]
    confidences: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(fail_fast=True)]


class _Subject(_Strict):
    model: str
    logits: Annotated[list[Annotated[list[float], Field(fail_fast=True)]], Field(fail_fast=True)] | None = None
    store: str
    classes: Annotated[list[str], Field(fail_fast=True)]
    all_classes: bool = False
    test: _Images | None
    scenarios: dict[str, _Images]


class _Document(_Strict):
    format: Literal[2, 3]
    subjects: dict[str, _Subject]


def _row(images: Predictions, number: Mapping[str, int]) -> str:
    predicted = [number[name] for name in images.predicted]
    row = {"images": images.sha256, "predicted": predicted, "confidences": images.confidences}
    return json.dumps(row, separators=(",", ":"))


def _part(subject: _Subject) -> SubjectBaseline:
    if len(set(subject.classes)) < len(subject.classes):
        raise ValueError("a class is given twice")
    if subject.logits and len({len(row) for row in subject.logits}) > 1:
        raise ValueError("the rows of logits differ in length")

    def read(entry: _Images) -> Predictions:
        if len(entry.predicted) != len(entry.confidences):
            raise ValueError("an entry needs a class and a confidence for each image")
        return Predictions(entry.images, tuple(subject.classes[i] for i in entry.predicted), tuple(entry.confidences))

    scenarios = {name: read(entry) for name, entry in subject.scenarios.items()}
    logits = None if subject.logits is None else tuple(map(tuple, subject.logits))
    test, classes = read(subject.test) if subject.test else None, tuple(subject.classes) if subject.all_classes else ()
    return SubjectBaseline(subject.model, scenarios, test, logits, classes)


def _matching(saved: Predictions | None, sha256: str, count: int, name: str, owner: str) -> tuple[str | None, ...]:
    if saved is None:
        return (None,) * count
    if saved.sha256 != sha256:
        raise DefuseError(
            f"The baseline's images of {name} are not {owner}: save a new baseline with --defuse-save-baseline on the "
            "commit to compare with."
        )
    return saved.predicted
