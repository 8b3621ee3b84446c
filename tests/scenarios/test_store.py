import multiprocessing
import os
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import pytest_defuse.scenarios.store as store_module
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.decisions import decide
from pytest_defuse.scenarios.lookup import accepted_scenarios, stores
from pytest_defuse.scenarios.problems import ChangedError
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import Budgets, StoreRecord, TileFormat
from pytest_defuse.scenarios.store import Store
from tests.contents import contents
from tests.scenarios.planting import (
    DIGITS,
    FIRST,
    SECOND,
    before_the_next_lock,
    machine_of,
    plant,
    random_tiles,
    record_of,
)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def in_processes(*jobs: tuple[Callable[..., None], tuple[object, ...]]) -> list[multiprocessing.process.BaseProcess]:
    """Start each function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=function, args=arguments) for function, arguments in jobs]
    for process in processes:
        process.start()
    return processes


def test_a_new_scenario_is_a_whole_folder_with_its_exact_pictures(store: Store, scenario: Scenario) -> None:
    assert scenario.record == record_of(FIRST, SECOND)
    assert scenario.folder == store.folder / scenario.id
    assert set(contents(store.folder)) == {
        *(".gitattributes", ".gitignore", ".lock", ".schema/scenario.json", ".schema/store.json", ".schema/votes.json"),
        "store.yaml",
        *(f"{scenario.id}/{name}" for name in ("scenario.yaml", "machine.json", "correction.png", "held_out.png")),
    }
    np.testing.assert_array_equal(scenario.pixels("correction"), FIRST)
    np.testing.assert_array_equal(scenario.pixels("held_out"), SECOND)
    assert scenario.subject == "digits"
    assert Store.of(scenario) == store


def test_the_numbers_of_a_new_scenario_have_nine_digits(store: Store) -> None:
    rate = {"failed": 1, "drawn": 3, "low": 1 / 7, "high": 2 / 3}
    scenario = plant(store, FIRST, FIRST, failure_rate=rate, base_error_rate=1e-7 / 3)
    text = scenario.yaml.read_text()
    assert "failure_rate: {failed: 1, drawn: 3, low: 0.142857143, high: 0.666666667}\n" in text
    assert "base_error_rate: 3.33333333e-08\n" in text
    assert store.get(scenario.id) == scenario


def test_reading_changes_no_byte(store: Store) -> None:
    before = contents(store.folder)
    for scenario in accepted_scenarios(store.folder.parent) + store.scenarios():
        scenario.pixels("held_out")
    assert contents(store.folder) == before


def test_adding_again_changes_no_byte_and_keeps_decisions(store: Store, scenario: Scenario) -> None:
    store.update(scenario.id, status="rejected", notes="blurred")
    before = contents(store.folder)
    again = plant(store, FIRST, SECOND)
    assert again.record.notes == "blurred"
    assert contents(store.folder) == before


def test_a_failed_add_leaves_nothing(store: Store) -> None:
    before = contents(store.folder)
    with pytest.raises(Exception, match=r"\S"):
        store.add(record_of(FIRST, FIRST), machine_of(), FIRST, FIRST.repeat(5, axis=1))  # no image has five channels
    assert contents(store.folder) == before
    assert list(store.folder.glob(".new-*")) == []


def test_pictures_that_the_record_does_not_describe_are_not_stored(store: Store) -> None:
    before = contents(store.folder)
    other = random_tiles(seed=9)
    for tiles in ((other, FIRST), (FIRST, other), (FIRST[:3], FIRST), (FIRST, FIRST.repeat(3, axis=1))):
        with pytest.raises(DefuseError, match="are not those that its record describes"):
            store.add(record_of(FIRST, FIRST), machine_of(), *tiles)
    assert contents(store.folder) == before


def add_and_die(folder: Path) -> None:
    store_module.write_plain = lambda path, _: (path.name == "machine.json" and os._exit(9)) or path.touch()
    Store(folder).add(record_of(FIRST, FIRST), machine_of(), FIRST, FIRST)


def test_a_process_killed_while_adding_disturbs_nobody(store: Store, scenario: Scenario) -> None:
    (process,) = in_processes((add_and_die, (store.folder,)))
    process.join()
    assert process.exitcode == 9
    assert len(list(store.folder.glob(".new-*/*/*.png"))) == 2
    assert store.scenarios() == [scenario]
    assert stores(store.folder.parent) == [store]
    added = plant(store, FIRST, FIRST)
    assert {s.id for s in store.scenarios()} == {scenario.id, added.id}
    assert list(store.folder.glob(".new-*")) == []


HIDDEN = (
    "store.yaml",
    ".gitignore",
    ".schema/store.json",
    "{id}/scenario.yaml",
    "{id}/machine.json",
    "{id}/votes/a.yaml",
)
"""Files that are written to a store."""


def hidden(store: Store, scenario: Scenario, ending: str) -> set[str]:
    """New files in the store, each beside one that is written and hidden under its name with an ending."""
    paths = [store.folder / name.format(id=scenario.id) for name in HIDDEN]
    paths = [path.with_name(f".{path.name}.{ending}") for path in paths]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return {str(path.relative_to(store.folder)) for path in paths}


def test_a_writer_removes_what_a_killed_one_left_and_no_file_of_an_editor(store: Store, scenario: Scenario) -> None:
    left, others = hidden(store, scenario, "0a1b2c3d"), hidden(store, scenario, "swp")
    (store.folder / ".new-ideas").mkdir()
    store.update(scenario.id, notes="x")
    after = set(contents(store.folder))
    assert not left & after
    assert others <= after
    assert (store.folder / ".new-ideas").exists()


def test_a_writer_removes_nothing_outside_the_store(store: Store, scenario: Scenario, tmp_path: Path) -> None:
    other = plant(store, FIRST, FIRST)
    outside = other.folder.rename(tmp_path / "outside")
    other.folder.symlink_to(outside, target_is_directory=True)
    (outside / ".scenario.yaml.0a1b2c3d").touch()
    store.update(scenario.id, notes="x")
    assert (outside / ".scenario.yaml.0a1b2c3d").exists()


def test_an_update_changes_its_keys_alone(store: Store, scenario: Scenario) -> None:
    before = contents(store.folder)
    updated = store.update(scenario.id, status="accepted", label="5")
    assert updated == store.get(scenario.id)
    assert (updated.record.status, updated.record.label) == ("accepted", "5")
    name = f"{scenario.id}/scenario.yaml"
    old, new = before.pop(name).decode(), contents(store.folder)[name].decode()
    assert new == old.replace('"candidate"', '"accepted"').replace("label: null", 'label: "5"', 1)
    assert before.items() < contents(store.folder).items()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"label": "cat"}, "label: 'cat' is not one of the classes 0, 1"),
        ({"label": 3}, "label: must be a string"),
        ({"status": "accepted"}, "label is empty"),
        ({"status": "acepted"}, "status: must be 'candidate'"),
        ({"lable": "3"}, "lable: is not a known key"),
        ({"id": "other"}, "give both the same name"),
        ({"id": "../other"}, "id: must match the pattern"),
        ({"tile": {"mode": "L", "width": 9, "height": 8}}, "tile: differs"),
    ],
)
def test_a_change_that_is_wrong_is_refused_before_it_is_written(
    store: Store, scenario: Scenario, changes: dict[str, object], problem: str
) -> None:
    before = contents(store.folder)
    with pytest.raises(DefuseError, match=re.escape(problem)):
        store.update(scenario.id, **changes)
    assert contents(store.folder) == before


@pytest.mark.parametrize(
    "late",
    [
        lambda store, read: store.update(read.id, read.sha256, status="accepted", label="5"),
        lambda store, read: store.vote(read.id, "anna", {"correction": {0: "3"}}, expected=read.sha256),
        lambda store, read: decide(read, "5"),
    ],
)
def test_what_another_writer_decided_in_the_meantime_is_not_overwritten(
    store: Store, scenario: Scenario, late: Callable[[Store, Scenario], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_next_lock(monkeypatch, lambda: store.update(scenario.id, status="rejected", notes="theirs"))
    with pytest.raises(ChangedError, match=r"scenario\.yaml has changed since it was read, and was not written"):
        late(store, scenario)
    now = store.get(scenario.id)
    assert (now.record.status, now.record.label, now.record.notes) == ("rejected", None, "theirs")
    assert now.votes() == []


def test_updates_can_follow_each_other(store: Store, scenario: Scenario) -> None:
    accepted = decide(scenario, "5")
    assert decide(accepted, None).sha256 == sha256(scenario.yaml.read_bytes()).hexdigest()


def test_an_update_that_cannot_be_written_leaves_the_old_file(
    store: Store, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = contents(store.folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full)
        with pytest.raises(DefuseError, match=r"cannot be written \(No space left on device\): free disk space"):
            store.update(scenario.id, notes="x")
    assert contents(store.folder) == before


def write_notes(folder: Path, scenario_id: str, rounds: int) -> None:
    for number in range(rounds):
        Store(folder).update(scenario_id, notes=str(number))
        assert Store(folder).get(scenario_id).record.notes == str(number)


def write_labels(folder: Path, scenario_id: str, rounds: int) -> None:
    for number in range(rounds):
        Store(folder).update(scenario_id, label=str(number % 10))
        assert Store(folder).get(scenario_id).record.label == str(number % 10)


def add_scenarios(folder: Path, count: int) -> None:
    for seed in range(count):
        plant(Store(folder), FIRST, random_tiles(seed=100 + seed))


def vote_on_tiles(folder: Path, scenario_id: str, annotator: str, tiles: range) -> None:
    for tile in tiles:
        Store(folder).vote(scenario_id, annotator, {"held_out": {tile: "3"}})


@pytest.mark.slow
def test_processes_that_vote_at_once_lose_nothing(store: Store, scenario: Scenario) -> None:
    processes = in_processes(
        (vote_on_tiles, (store.folder, scenario.id, "anna", range(3))),
        (vote_on_tiles, (store.folder, scenario.id, "anna", range(3, 6))),
        (vote_on_tiles, (store.folder, scenario.id, "bob", range(6))),
        (write_labels, (store.folder, scenario.id, 10)),
    )
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    votes = store.get(scenario.id).votes()
    assert [vote.held_out.by_tile for vote in votes if vote.held_out] == [dict.fromkeys(range(6), "3")] * 2


@pytest.mark.parametrize(
    ("annotator", "votes", "problem"),
    [
        ("Anna", {0: "3"}, "Votes of 'Anna' on"),
        ("../anna", {0: "3"}, "annotator: must match the pattern"),
        ("anna", {0: "cat"}, "'cat' is not one of the classes"),
        ("anna", {4: "3"}, "votes on tile 4, but the sheet has tiles 0 to 3"),
        ("anna", {-1: "3"}, "must be >= 0"),
    ],
)
def test_a_vote_that_cannot_be_is_refused_before_it_is_written(
    store: Store, scenario: Scenario, annotator: str, votes: dict[int, str], problem: str
) -> None:
    before = contents(store.folder)
    with pytest.raises(DefuseError, match=re.escape(problem)):
        store.vote(scenario.id, annotator, {"correction": votes})
    assert contents(store.folder) == before


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(store: Store, scenario: Scenario) -> None:
    other = plant(store, FIRST, FIRST)
    processes = in_processes(
        (write_notes, (store.folder, scenario.id, 30)),
        (write_labels, (store.folder, scenario.id, 30)),
        (write_labels, (store.folder, other.id, 30)),
        (add_scenarios, (store.folder, 8)),
        (add_scenarios, (store.folder, 8)),
    )
    while any(process.is_alive() for process in processes):
        for found in store.scenarios():  # a reader sees whole files only
            found.pixels("held_out")
    assert [process.exitcode for process in processes] == [0] * 5
    assert (store.get(scenario.id).record.notes, store.get(scenario.id).record.label) == ("29", "9")
    assert store.get(other.id).record.label == "9"
    assert len(store.scenarios()) == 10
    assert {path.name for path in store.folder.glob(".*")} == {".gitattributes", ".gitignore", ".lock", ".schema"}


def test_scenarios_come_sorted_and_by_status(store: Store, scenario: Scenario) -> None:
    accepted = plant(store, FIRST, FIRST, "1", "2", status="accepted", label="1")
    rejected = plant(store, SECOND, FIRST, "9", "2", status="rejected")
    assert store.scenarios() == [accepted, scenario, rejected]
    assert store.scenarios("accepted") == [accepted]
    assert store.scenarios("candidate", "rejected") == [scenario, rejected]


def test_a_store_that_was_never_written_is_empty(tmp_path: Path) -> None:
    assert not Store(tmp_path / "digits").exists()
    assert Store(tmp_path / "digits").scenarios() == []
    assert accepted_scenarios(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_errors_of_all_scenarios_are_reported_at_once(store: Store, scenario: Scenario) -> None:
    other = plant(store, FIRST, FIRST)
    edit(scenario.yaml, "failed: 58", "failed: many")
    edit(other.yaml, 'status: "candidate"', "status: wrong")
    with pytest.raises(DefuseError) as caught:
        store.scenarios("accepted")
    lines = str(caught.value).splitlines()
    assert sorted(line.partition(".yaml:")[0] for line in lines) == sorted(
        str(found.folder / "scenario") for found in (scenario, other)
    )


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("format: 2\n}")])
def test_a_damaged_store_yaml_is_reported_once(store: Store, damage: Callable[[Path], None]) -> None:
    plant(store, FIRST, FIRST)
    damage(store.folder / "store.yaml")
    with pytest.raises(DefuseError) as caught:
        store.scenarios()
    assert str(caught.value).startswith(f"{store.folder / 'store.yaml'}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_of_another_name_than_the_id_is_refused(store: Store, scenario: Scenario) -> None:
    shutil.copytree(scenario.folder, store.folder / "copy")
    with pytest.raises(DefuseError) as caught:
        store.scenarios()
    assert str(caught.value) == (
        f"{store.folder / 'copy' / 'scenario.yaml'}:3: id: the id is '{scenario.id}', but the folder is 'copy': "
        "give both the same name."
    )


@pytest.mark.parametrize("key", ["label", "proposed_label"])
def test_a_class_that_the_store_does_not_have_is_refused(store: Store, scenario: Scenario, key: str) -> None:
    scenario.yaml.write_text(re.sub(rf"(?m)^{key}: .*$", f"{key}: cat", scenario.yaml.read_text()))
    with pytest.raises(
        DefuseError, match=rf":\d+: {key}: 'cat' is not one of the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    ):
        store.get(scenario.id)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../digits", "/etc", "a/b", "a\\b", "A", "no-such", "x\n", "%2e%2e", "\0", "é"]
)
def test_a_name_that_is_no_id_is_answered_with_the_ids(store: Store, scenario: Scenario, name: str) -> None:
    with pytest.raises(DefuseError) as caught:
        store.get(name)
    assert str(caught.value) == f"There is no scenario {name!r} in {store.folder}: it has {scenario.id}."


@pytest.mark.parametrize("name", ["../digits", "..", "3/../../x"])
def test_nothing_outside_the_store_is_updated(store: Store, name: str) -> None:
    before = contents(store.folder.parent)
    with pytest.raises(DefuseError, match="There is no scenario"):
        store.update(name, notes="x")
    assert contents(store.folder.parent) == before


@pytest.mark.parametrize(
    ("classes", "tile"),
    [
        (DIGITS[::-1], TileFormat(mode="L", width=8, height=8)),
        (DIGITS[:9], TileFormat(mode="L", width=8, height=8)),
        (DIGITS, TileFormat(mode="RGB", width=8, height=8)),
        (DIGITS, TileFormat(mode="L", width=8, height=9)),
    ],
)
def test_a_store_of_other_classes_or_images_is_not_taken_over(
    store: Store, classes: tuple[str, ...], tile: TileFormat
) -> None:
    before = contents(store.folder)
    with pytest.raises(DefuseError, match="give the subject another name, or move the old store away"):
        store.open_for(StoreRecord.of(classes, tile))
    assert contents(store.folder) == before


def test_opening_a_store_again_changes_no_byte(store: Store) -> None:
    before = contents(store.folder)
    store.open_for(store.record().model_copy(update={"budgets": Budgets(tiles=9)}))
    assert contents(store.folder) == before
