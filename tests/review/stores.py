"""Small stores to try the command and the page on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import DIGITS, plant, random_tiles


def build_store(folder: Path, classes: Sequence[str] = DIGITS, images: int = 9) -> Store:
    """A store of grey tiles with three candidates: classes 1, 3 and 2 as 2, 1 and 0."""
    store = Store(folder)
    for seed, (label, prediction) in enumerate([(1, 2), (3, 1), (2, 0)]):
        add_candidate(store, classes[label], classes[prediction], images=images, seed=seed, classes=tuple(classes))
    return store


def add_candidate(store: Store, label: str, prediction: str, *, images: int, seed: int, **changes: Any) -> Scenario:
    """Write a scenario of random tiles that the model takes for ``prediction``, but for one."""
    tiles = (random_tiles(images, seed=2 * seed + split) for split in range(2))
    return plant(store, *tiles, shows=label, predicted=prediction, **changes)
