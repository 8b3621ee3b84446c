"""From failure modes to the store: candidate scenarios of real images."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.explain.explanation import Explanation, matching_images
from pytest_defuse.explain.failure_modes import FailureMode, Rows
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
    """Images of one label that meet a failure mode's rule, whether the model is right on them or wrong.

    Chosen for their failures they would look better to any other model.

    Attributes:
        label: a class index.
        rows: test images that did not choose the rule.
        correction: uint8 N x C x H x W, *training* images, so that a corrected model has seen no test image.
    """

    mode: FailureMode
    label: int
    rows: Rows
    correction: Tensor


def store_failure_modes(store: Store, explanation: Explanation, cache: Path | None = None) -> Stored:
    """Write each failure mode as a scenario of status ``candidate``; one that is there already is not touched.

    A mode whose rule no training image meets is left out: there would be nothing to correct it with.

    Args:
        cache: the folder in which the training images' features are kept.

    Raises:
        DefuseError: the store belongs to other classes or another image size.
    """
    new: list[Scenario] = []
    known: list[Scenario] = []
    for mode in explanation.modes:
        with seeded(explanation.seed):  # a model may draw random numbers
            found = slice_of(explanation, mode, cache)
            if not len(found.correction):
                continue
            record, held_out = _record(explanation, found)
        classes = explanation.subject.classes
        store.open_for(classes, StoreRecord(format=FORMAT, classes=tuple(classes), tile=record.tile))
        present = record.id in {scenario.id for scenario in store.scenarios()}
        scenario = store.add(record, found.correction.numpy(), held_out.numpy())
        (known if present else new).append(scenario)
    return Stored(tuple(new), tuple(known))


def slice_of(explanation: Explanation, mode: FailureMode, cache: Path | None = None) -> Slice:
    """The slice of a failure mode; its label is that on which the model fails most where the rule holds."""
    subject, modes = explanation.subject, explanation.modes
    labels = subject.test_images.labels.numpy()
    picked = modes.rows(mode.group, mode.path, explanation.features)
    label = int(np.bincount(labels[picked[explanation.failed[picked]]]).argmax())
    rows = np.flatnonzero((labels == label) & modes.measures)
    rows = rows[matches(mode.path, explanation.features[rows])]
    train = subject.train_images
    correction = train.pixels[matching_images(explanation.network, train, mode.path, cache) & (train.labels == label)]
    return Slice(mode, label, rows, _some(explanation, correction, 5))


def _record(explanation: Explanation, found: Slice) -> tuple[ScenarioRecord, Tensor]:
    """The scenario.yaml of a slice, and the held-out tiles."""
    subject, network, mode = explanation.subject, explanation.network, found.mode
    label = subject.classes[found.label]
    failed = int(explanation.failed[found.rows].sum())
    low, high = wilson_interval(failed, len(found.rows))
    shown = _some(explanation, torch.from_numpy(found.rows), 6)
    tiles, said = subject.test_images.pixels[shown], torch.from_numpy(explanation.predictions)[shown]
    wrong = Counter(said[said != found.label].tolist()).most_common(1)
    held_out = sheet_of(tiles.numpy(), [subject.classes[index] for index in said.tolist()])
    predicted = explanation.model.predict(found.correction).tolist()
    correction = sheet_of(found.correction.numpy(), [subject.classes[index] for index in predicted])
    record = ScenarioRecord(
        format=FORMAT,
        id=scenario_id(label, subject.classes[wrong[0][0]] if wrong else "other", held_out.sha256),
        status="candidate",
        label=None,
        proposed_label=label,
        failure_rate=FailureRate(failed=failed, drawn=len(found.rows), low=low, high=high),
        tile=tile_of(tiles.numpy()),
        sheets=Sheets(correction=correction, held_out=held_out),
        method=Method(
            name="barlow",
            rule=f"{mode.group}: {mode.rule} ({network.name}, {network.key})",
            base_error_rate=mode.base_error_rate,
        ),
        provenance=Provenance(
            model=explanation.model.hash,
            data=subject.train_images.hash,
            seed=explanation.seed,
            versions=installed_versions(),
        ),
        region=None,
    )
    return record, tiles


def _some(explanation: Explanation, items: Tensor, stream: int) -> Tensor:
    """As many items as a sheet takes, drawn at random, in their order."""
    drawn = random_numbers(explanation.seed, stream).permutation(len(items))[: explanation.settings.images]
    return items[np.sort(drawn)]
