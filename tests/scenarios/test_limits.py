"""Nothing is written that could not be read back: the limits of reading are checked before writing."""

from pathlib import Path

import numpy as np
import pytest

from pytest_defuse.cli import main
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios import documents, machine
from pytest_defuse.scenarios.schema import StoreRecord
from pytest_defuse.scenarios.store import Store
from tests.contents import contents
from tests.scenarios.planting import FIRST, STORE, machine_of, plant, random_tiles, record_of


def region(size: int) -> dict[str, object]:
    covariance = (np.eye(size) + np.full((size, size), 1 / 3)).tolist()
    return {"generator": "c" * 64, "weight": 0.25, "tau": 0.5, "mean": [1 / 3] * size, "covariance": covariance}


def test_notes_that_are_too_long_are_not_written(store: Store) -> None:
    before, (scenario,) = contents(store.folder), store.scenarios()
    with pytest.raises(DefuseError, match=r"scenario\.yaml has 4,\d+,\d+ bytes, more than the limit of 4,194,304"):
        store.update(scenario.id, notes="x" * 2**22)
    assert contents(store.folder) == before
    store.update(scenario.id, notes="x" * 2**20)
    assert len(store.scenarios()[0].record.notes) == 2**20


@pytest.mark.parametrize("character", ["\0", "\ud800", "\x1b", "\x85", "\u2028", "\ufeff", "\ufffe", "\U0001f600"])
def test_notes_read_back_or_are_not_written(store: Store, character: str) -> None:
    before, (scenario,) = contents(store.folder), store.scenarios()
    notes = f"a{character}b\n{character}"
    try:
        store.update(scenario.id, notes=notes)
    except DefuseError:
        assert contents(store.folder) == before
    assert store.scenarios()[0].record.notes in (notes, "")


def test_a_region_that_is_too_large_is_not_written(store: Store) -> None:
    """A covariance of 580 dimensions is written and read back; one that would be too long is refused."""
    for size, fits in ((580, True), (1000, False)):
        before, known = contents(store.folder), machine_of(region=region(size))
        if not fits:
            with pytest.raises(DefuseError, match=r"machine\.json has \d+,\d+,\d+ bytes, more than the limit"):
                plant(store, FIRST, random_tiles(seed=size), machine=known)
            assert contents(store.folder) == before
        else:
            added = plant(store, FIRST, random_tiles(seed=size), machine=known)
            assert store.get(added.id).machine == known


def test_the_limits_of_writing_are_those_of_reading(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (scenario,) = store.scenarios()
    size = len(scenario.yaml.read_bytes())
    monkeypatch.setattr(documents, "MAX_YAML_BYTES", size)
    assert store.scenarios() == [scenario]
    monkeypatch.setattr(documents, "MAX_YAML_BYTES", size - 1)
    with pytest.raises(DefuseError, match="more than the limit"):
        store.scenarios()
    monkeypatch.undo()
    size = len((scenario.folder / "machine.json").read_bytes())
    monkeypatch.setattr(machine, "MAX_BYTES", size - 1)
    with pytest.raises(DefuseError, match="more than the limit"):
        plant(store, FIRST, random_tiles(seed=7))
    assert len(store.folders()) == 1


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("a", "b", "a", "b", "c"), "classes 'a', 'b' are given twice"),
        ((), "classes: must have 1 or more entries"),
    ],
)
def test_classes_that_cannot_be_stored_are_named(classes: tuple[str, ...], words: str) -> None:
    with pytest.raises(DefuseError, match="The classes cannot be stored") as caught:
        StoreRecord.of(classes, STORE.tile)
    assert words in str(caught.value)


def test_too_many_classes_for_a_file_are_not_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "digits")
    with pytest.raises(DefuseError, match=r"store\.yaml has \d+,\d+,\d+ bytes, more than the limit"):
        store.open_for(StoreRecord.of([f"class {number:01000}" for number in range(4_500)], STORE.tile))
    with pytest.raises(DefuseError, match=r"store\.yaml cannot hold a text with characters that YAML does not have"):
        store.open_for(StoreRecord.of(["a", "\ud800"], STORE.tile))
    assert not store.exists()


def test_the_command_line_says_it(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(store.folder)
    (scenario,) = store.scenarios()
    assert main(["label", scenario.id, "--label", "\ud800", "--defuse-store", str(tmp_path / "fixtures")]) == 2
    assert contents(store.folder) == before
    assert "is not a class" in capsys.readouterr().err


def test_a_record_is_what_its_file_says(store: Store) -> None:
    record = record_of(FIRST, FIRST, notes="a: b # c", description="'\"\t")
    added = store.add(record, machine_of(), FIRST, FIRST)
    assert added.record == record
