"""Scenarios of known images, planted into a store."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from pytest_defuse.runtime.files import replace_text
from pytest_defuse.scenarios.machine import MachineRecord
from pytest_defuse.scenarios.scenario import Scenario, scenario_id
from pytest_defuse.scenarios.schema import (
    FORMAT,
    FailureRate,
    Provenance,
    ScenarioRecord,
    SheetRecord,
    Sheets,
    StoreRecord,
    TileFormat,
)
from pytest_defuse.scenarios.sheets import Pixels, pixel_hash, tile_format
from pytest_defuse.scenarios.store import Store

DIGITS = tuple("0123456789")
STORE = StoreRecord.of(DIGITS, TileFormat(mode="L", width=8, height=8))


def random_tiles(count: int = 4, channels: int = 1, width: int = 8, height: int = 8, seed: int = 0) -> Pixels:
    shape = (count, channels, height, width)
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


FIRST, SECOND = random_tiles(), random_tiles(6, seed=1)
"""The tiles of most planted scenarios: correction and held-out."""


def machine_of(**parts: Any) -> MachineRecord:
    return MachineRecord.model_validate({"format": FORMAT} | parts)


def record_of(
    correction: Pixels,
    held_out: Pixels,
    shows: str = "3",
    predicted: str = "5",
    machine: MachineRecord | None = None,
    **changes: Any,
) -> ScenarioRecord:
    """The record of a candidate: the model predicts another class for all tiles but one a sheet."""
    sheets = [
        SheetRecord(images=len(tiles), sha256=pixel_hash(tiles), predicted={predicted: len(tiles) - 1, shows: 1})
        for tiles in (correction, held_out)
    ]
    record = ScenarioRecord(
        format=FORMAT,
        id=scenario_id(shows, predicted, sheets[1].sha256),
        status="candidate",
        label=None,
        proposed_label=shows,
        description="Images of another class.",
        failure_rate=FailureRate(failed=58, drawn=64, low=0.81, high=0.96),
        tile=tile_format(held_out),
        sheets=Sheets(correction=sheets[0], held_out=sheets[1]),
        method="defuse",
        provenance=Provenance(model="a" * 64, data="b" * 64, seed=0, versions={"torch": "2.9"}),
        machine=(machine or machine_of()).sha256,
    )
    return ScenarioRecord.model_validate(record.model_dump() | changes)


def plant(
    store: Store,
    correction: Pixels,
    held_out: Pixels,
    shows: str = "3",
    predicted: str = "5",
    classes: tuple[str, ...] = DIGITS,
    machine: MachineRecord | None = None,
    **changes: Any,
) -> Scenario:
    """Add a scenario to a store, which is opened for these classes."""
    store.open_for(StoreRecord.of(classes, tile_format(held_out)))
    record = record_of(correction, held_out, shows, predicted, machine, **changes)
    return store.add(record, machine or machine_of(), correction, held_out)


def exclude(scenario: Scenario, split: str, *tiles: int) -> Scenario:
    """The scenario with tiles of one of its sheets excluded."""
    sheets = scenario.record.sheets.model_dump()
    sheets[split]["excluded"] = tiles
    return Store.of(scenario).update(scenario.id, sheets=sheets)


def with_machine(scenario: Scenario, **parts: Any) -> Scenario:
    """The scenario with another machine.json: these parts changed."""
    machine = MachineRecord.model_validate(scenario.machine.model_dump() | parts)
    replace_text(scenario.folder / "machine.json", machine.text)
    text = scenario.yaml.read_text().replace(scenario.record.machine, machine.sha256)
    replace_text(scenario.yaml, text)
    return Store.of(scenario).get(scenario.id)


def with_predictions(scenario: Scenario) -> Scenario:
    """The scenario with the prediction for each tile recorded: the counted classes in their order."""
    tiles = {
        split: {"predicted": tuple(Counter(scenario.record.sheet(split).predicted).elements())}
        for split in ("correction", "held_out")
    }
    return with_machine(scenario, **tiles)


def before_the_next_lock(monkeypatch: pytest.MonkeyPatch, write: Callable[[], object]) -> None:
    """Another writer is faster: it writes just before the next writer has the lock."""
    acquire, writers = FileLock.acquire, [write]

    def acquire_late(lock: FileLock, *arguments: Any, **options: Any) -> Any:
        if writers:
            writers.pop()()
        return acquire(lock, *arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", acquire_late)
