"""Candidate scenarios of real images, from failure modes."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.explain.explanation import Explanation, matching_images
from pytest_defuse.explain.failure_modes import FailureMode
from pytest_defuse.rules.honest import Rows
from pytest_defuse.rules.trees import matches
from pytest_defuse.runtime.determinism import random_numbers, seeded
from pytest_defuse.scenarios.schema import (
    FORMAT,
    FailureRate,
    Method,
    Provenance,
    ScenarioRecord,
    Sheets,
    StoreRecord,
    installed_versions,
)
from pytest_defuse.scenarios.sheets import sheet_of, tile_of
from pytest_defuse.scenarios.store import Scenario, Store, Stored, scenario_id
from pytest_defuse.statistics.accuracy import wilson_interval


@dataclass(frozen=True, eq=False)
class Slice:
    """Images with one label that match a failure mode, whether the model classifies them correctly or not.

    If only failures were selected, any other model would have a higher accuracy on them.

    Attributes:
        label: class index.
        rows: test images that were not used to find the rule.
        correction: *training* images, uint8 N x C x H x W, so that a corrected model has seen no test image.
    """

    mode: FailureMode
    label: int
    rows: Rows
    correction: Tensor


def store_failure_modes(store: Store, explanation: Explanation, cache: Path | None = None) -> Stored:
    """Write each failure mode as a scenario with status ``candidate``; an existing one is not changed.

    A mode that no training image matches is left out, because there is nothing to correct it with.

    Args:
        cache: folder of stored features.

    Raises:
        DefuseError: the store has other classes or another image size.
    """
    new: list[Scenario] = []
    known: list[Scenario] = []
    for mode in explanation.modes:
        with seeded(explanation.seed):  # a model may draw random numbers
            selected = slice_of(explanation, mode, cache)
            if not len(selected.correction):
                continue
            record, held_out = _record(explanation, selected)
        classes = explanation.subject.classes
        store.open_for(classes, StoreRecord(format=FORMAT, classes=tuple(classes), tile=record.tile))
        present = record.id in {scenario.id for scenario in store.scenarios()}
        scenario = store.add(record, selected.correction.numpy(), held_out.numpy())
        (known if present else new).append(scenario)
    return Stored(tuple(new), tuple(known))


def slice_of(explanation: Explanation, mode: FailureMode, cache: Path | None = None) -> Slice:
    """The slice of a failure mode, with the label that has the most failures among the images that match."""
    subject, modes = explanation.subject, explanation.modes
    labels = subject.test_images.labels.numpy()
    matching = modes.rows(mode.group, mode.path, explanation.features)
    label = int(np.bincount(labels[matching[explanation.failed[matching]]]).argmax())
    rows = np.flatnonzero((labels == label) & modes.measures)
    rows = rows[matches(mode.path, explanation.features[rows])]
    train = subject.train_images
    correction = train.pixels[matching_images(explanation.network, train, mode.path, cache) & (train.labels == label)]
    return Slice(mode, label, rows, _sample(explanation, correction, 5))


def _record(explanation: Explanation, selected: Slice) -> tuple[ScenarioRecord, Tensor]:
    """The scenario.yaml of a slice, and the held-out tiles."""
    subject, network, mode = explanation.subject, explanation.network, selected.mode
    label = subject.classes[selected.label]
    failed = int(explanation.failed[selected.rows].sum())
    low, high = wilson_interval(failed, len(selected.rows))
    rows = _sample(explanation, torch.from_numpy(selected.rows), 6)
    tiles, predictions = subject.test_images.pixels[rows], torch.from_numpy(explanation.predictions)[rows]
    wrong = Counter(predictions[predictions != selected.label].tolist()).most_common(1)
    held_out = sheet_of(tiles.numpy(), [subject.classes[index] for index in predictions.tolist()])
    predicted = explanation.model.predict(selected.correction).tolist()
    correction = sheet_of(selected.correction.numpy(), [subject.classes[index] for index in predicted])
    record = ScenarioRecord(
        format=FORMAT,
        id=scenario_id(label, subject.classes[wrong[0][0]] if wrong else "other", held_out.sha256),
        status="candidate",
        label=None,
        proposed_label=label,
        failure_rate=FailureRate(failed=failed, drawn=len(selected.rows), low=low, high=high),
        tile=tile_of(tiles.numpy()),
        sheets=Sheets(correction=correction, held_out=held_out),
        method=Method(
            name="barlow",
            rule=f"{mode.group}: {mode.rule} ({network.name}, {network.key})",
            base_error_rate=mode.base_error_rate,
        ),
        provenance=Provenance(
            model=explanation.model.fingerprint,
            data=subject.train_images.hash,
            seed=explanation.seed,
            versions=installed_versions(),
        ),
        region=None,
    )
    return record, tiles


def _sample(explanation: Explanation, items: Tensor, stream: int) -> Tensor:
    """A random sample of as many items as fit in a sheet, in their order."""
    drawn = random_numbers(explanation.seed, stream).permutation(len(items))[: explanation.settings.tiles]
    return items[np.sort(drawn)]
