"""Scenarios of given pictures, planted into a store."""

from typing import Any

import numpy as np

from pytest_defuse.scenarios.schema import (
    FailureRate,
    Method,
    Provenance,
    ScenarioRecord,
    Sheet,
    Sheets,
    StoreRecord,
)
from pytest_defuse.scenarios.sheets import Pixels, pixel_hash, tile_of
from pytest_defuse.scenarios.store import Scenario, Store, scenario_id

DIGITS = tuple("0123456789")


def random_tiles(count: int = 4, channels: int = 1, width: int = 8, height: int = 8, seed: int = 0) -> Pixels:
    shape = (count, channels, height, width)
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def record_of(
    correction: Pixels, held_out: Pixels, shows: str = "3", taken_for: str = "5", **changes: Any
) -> ScenarioRecord:
    """The record of a candidate: the model took all tiles, but for one a sheet, for another class."""
    sheets = [
        Sheet(images=len(tiles), sha256=pixel_hash(tiles), predicted={taken_for: len(tiles) - 1, shows: 1})
        for tiles in (correction, held_out)
    ]
    record = ScenarioRecord(
        format=1,
        id=scenario_id(shows, taken_for, sheets[1].sha256),
        status="candidate",
        label=None,
        proposed_label=shows,
        failure_rate=FailureRate(failed=58, drawn=64, low=0.81, high=0.96),
        tile=tile_of(held_out),
        sheets=Sheets(correction=sheets[0], held_out=sheets[1]),
        method=Method(name="defuse"),
        provenance=Provenance(model="a" * 64, data="b" * 64, seed=0, versions={"torch": "2.9"}),
        region=None,
    )
    return ScenarioRecord.model_validate(record.model_dump() | changes)


def plant(
    store: Store,
    correction: Pixels,
    held_out: Pixels,
    shows: str = "3",
    taken_for: str = "5",
    classes: tuple[str, ...] = DIGITS,
    **changes: Any,
) -> Scenario:
    """Add a scenario to a store, which is opened for these classes."""
    store.open_for(classes, StoreRecord(format=1, classes=classes, tile=tile_of(held_out)))
    return store.add(record_of(correction, held_out, shows, taken_for, **changes), correction, held_out)


def exclude(scenario: Scenario, split: str, *tiles: int) -> Scenario:
    """The scenario with tiles of one of its sheets excluded."""
    sheets = scenario.record.sheets.model_dump()
    sheets[split]["excluded"] = tiles
    return scenario.store.update(scenario.id, sheets=sheets)
