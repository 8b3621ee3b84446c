"""Candidate scenarios of real images, from failure modes."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.explain.explanation import Explanation, matching_images
from pytest_defuse.explain.failure_modes import FailureMode
from pytest_defuse.rules.honest_split import Rows
from pytest_defuse.rules.trees import matches
from pytest_defuse.runtime.determinism import Stream, random_numbers, seeded
from pytest_defuse.scenarios.machine import MachineRecord, Tiles
from pytest_defuse.scenarios.room import room_for
from pytest_defuse.scenarios.scenario import Scenario, scenario_id
from pytest_defuse.scenarios.schema import (
    FORMAT,
    Budgets,
    FailureRate,
    Provenance,
    ScenarioRecord,
    Sheets,
    StoreRecord,
    installed_versions,
)
from pytest_defuse.scenarios.sheets import pixel_hash, sheet_record, tile_format
from pytest_defuse.scenarios.store import Store, Stored
from pytest_defuse.statistics.accuracy import wilson_interval
from pytest_defuse.subject.images import found_in


@dataclass(frozen=True, eq=False)
class Slice:
    """Images with one label that match a failure mode, whether the model classifies them correctly or not.

    If only failures were selected, any other model would have a higher accuracy on them.
    """

    mode: FailureMode
    label: int  # class index
    rows: Rows  # test images that were not used to find the rule
    correction: Tensor  # *training* images, uint8 N x C x H x W: no test image, and no validation image


def store_failure_modes(store: Store, explanation: Explanation, cache: Path | None = None) -> Stored:
    """Write each failure mode as a scenario with status ``candidate``; an existing one is not changed.

    A mode is left out if no training image matches it, because there is nothing to correct with; if its held-out tiles
    do not fail as much more often than the group as a mode must (``delta``), because the label's images that match are
    not those of the group; and if the store is full. ``cache`` is the folder of stored features.

    Raises:
        DefuseError: the store cannot be used or is full (:func:`room_for`).
    """
    new: list[Scenario] = []
    known: list[Scenario] = []
    left_out: list[str] = []
    room = room_for(store, explanation.subject) if explanation.modes else 0
    for mode in explanation.modes:
        with seeded(explanation.seed, explanation.model.device):  # a model may draw random numbers
            selected = slice_of(explanation, mode, cache)
            if not len(selected.correction):
                left_out.append(f"{mode.group}, where {mode.rule}: no training image matches")
                continue
            record, machine, held_out = _records(explanation, selected)
        rate, required = record.failure_rate, mode.base_error_rate + explanation.settings.delta
        if rate is None or rate.failed <= required * rate.drawn:
            name = explanation.subject.classes[selected.label]
            share = f"{rate.failed} of {rate.drawn}" if rate else "none"
            left_out.append(
                f"{mode.group}, where {mode.rule}: {share} images of {name} fail, and more than {required:.1%} must"
            )
            continue
        store.open_for(StoreRecord.of(explanation.subject.classes, record.tile))
        if record.id in {scenario.id for scenario in store.scenarios()}:
            known.append(store.get(record.id))
        elif len(new) == room:
            left_out.append(f"{mode.group}, where {mode.rule}: beyond the budget of scenarios in store.yaml")
        else:
            new.append(store.add(record, machine, selected.correction.numpy(), held_out.numpy()))
    return Stored(tuple(new), tuple(known), tuple(left_out))


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
    # A correction chooses its model on the validation images, so it must not train on them.
    correction = correction[~found_in(correction, subject.split[1].pixels)]
    return Slice(mode, label, rows, _sample(explanation, correction, Stream.CORRECTION_TILES))


def _records(explanation: Explanation, selected: Slice) -> tuple[ScenarioRecord, MachineRecord, Tensor]:
    """The scenario.yaml and machine.json of a slice, and the held-out tiles."""
    subject, network, mode = explanation.subject, explanation.network, selected.mode
    label = subject.classes[selected.label]
    rows = _sample(explanation, torch.from_numpy(selected.rows), Stream.HELD_OUT_TILES)
    failed, drawn = int(explanation.failed[rows.numpy()].sum()), len(rows)
    low, high = wilson_interval(failed, drawn)
    tiles = subject.test_images.pixels[rows]
    held_out = [subject.classes[index] for index in explanation.predictions[rows.numpy()].tolist()]
    correction = [subject.classes[index] for index in explanation.model.predict(selected.correction).tolist()]
    wrong = Counter(name for name in held_out if name != label).most_common(1)
    machine = MachineRecord(
        format=FORMAT, correction=_tiles(selected.correction, correction), held_out=_tiles(tiles, held_out)
    )
    sheets = Sheets(
        correction=sheet_record(selected.correction.numpy(), correction), held_out=sheet_record(tiles.numpy(), held_out)
    )
    model, data = explanation.model.fingerprint, subject.train_images.hash
    provenance = Provenance(model=model, data=data, seed=explanation.seed, versions=installed_versions())
    record = ScenarioRecord(
        format=FORMAT,
        id=scenario_id(label, wrong[0][0] if wrong else "other", sheets.held_out.sha256),
        status="candidate",
        label=None,
        proposed_label=label,
        description=f"{mode.group}: {mode.rule} ({network.name}, {network.key})",
        failure_rate=FailureRate(failed=failed, drawn=drawn, low=low, high=high),
        base_error_rate=mode.base_error_rate,
        tile=tile_format(tiles.numpy()),
        sheets=sheets,
        method="barlow",
        provenance=provenance,
        machine=machine.sha256,
    )
    return record, machine, tiles


def _tiles(pixels: Tensor, predicted: list[str]) -> Tiles:
    sources = tuple(pixel_hash(image[None]) for image in pixels.numpy())
    return Tiles(predicted=tuple(predicted), sources=sources)


def _sample(explanation: Explanation, items: Tensor, stream: Stream) -> Tensor:
    """A random sample of as many items as fit in a sheet, in their order."""
    budget = Budgets.of(tile_format(explanation.subject.test_images.pixels[:1].numpy())).tiles
    order = random_numbers(explanation.seed, stream).permutation(len(items))
    return items[np.sort(order[: min(explanation.settings.tiles, budget)])]
