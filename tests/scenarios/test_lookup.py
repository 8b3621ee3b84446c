import re
from pathlib import Path

import pytest

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.lookup import accepted_scenarios
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import FIRST, SECOND, plant


def test_a_folder_that_lost_its_scenario_yaml_is_no_silence(store: Store, scenario: Scenario) -> None:
    scenario.yaml.unlink()
    with pytest.raises(DefuseError, match=r"scenario\.yaml is missing"):
        accepted_scenarios(store.folder.parent)


def test_a_store_that_lost_its_store_yaml_is_no_silence(store: Store, scenario: Scenario) -> None:
    (store.folder / "store.yaml").unlink()
    with pytest.raises(DefuseError, match=r"store\.yaml is missing"):
        accepted_scenarios(store.folder.parent)


@pytest.fixture
def accepted(tmp_path: Path) -> dict[str, Scenario]:
    """Four accepted scenarios of two subjects beside one that is not, by a nickname."""
    digits, pets = Store(tmp_path / "digits"), Store(tmp_path / "pets")
    names = ("cat", "dog")
    plant(digits, FIRST, SECOND)
    return {
        "1 as 7": plant(digits, FIRST, FIRST, "1", "7", status="accepted", label="1"),
        "1 as 2": plant(digits, SECOND, FIRST, "1", "2", status="accepted", label="1"),
        "8 as 2": plant(digits, SECOND, FIRST, "8", "2", status="accepted", label="8"),
        "cat": plant(pets, FIRST, FIRST, "cat", "dog", names, status="accepted", label="cat"),
    }


def test_all_accepted_scenarios_come_by_subject_and_id(accepted: dict[str, Scenario], tmp_path: Path) -> None:
    found = accepted_scenarios(tmp_path)
    assert found == sorted(accepted.values(), key=lambda s: (s.subject, s.id))


def test_accepted_scenarios_are_chosen_by_id_and_label(accepted: dict[str, Scenario], tmp_path: Path) -> None:
    def chosen(*only: str) -> set[str]:
        found = accepted_scenarios(tmp_path, only)
        return {name for name, scenario in accepted.items() if scenario in found}

    assert chosen("1") == {"1 as 7", "1 as 2"}
    assert chosen(accepted["1 as 2"].id) == {"1 as 2"}
    assert chosen("cat", accepted["8 as 2"].id) == {"cat", "8 as 2"}
    assert chosen("1", accepted["1 as 2"].id) == {"1 as 7", "1 as 2"}


@pytest.mark.parametrize("name", ["3", "dog", "no-such-id", "", "1 as 7"])
def test_a_name_that_chooses_nothing_is_refused(accepted: dict[str, Scenario], tmp_path: Path, name: str) -> None:
    with pytest.raises(DefuseError, match=re.escape(f"defuse(only=...) names {name!r}, which is neither")):
        accepted_scenarios(tmp_path, ["1", name])


@pytest.mark.parametrize("name", ["猫", "a/b", "..", "x" * 300, "null", " 3 ", "no: #", "\n"])
def test_a_class_of_any_name_can_be_stored_and_labelled(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "things")
    planted = plant(store, FIRST, SECOND, name, "other", (name, "other"))
    store.update(planted.id, status="accepted", label=name)
    assert [scenario.record.label for scenario in accepted_scenarios(tmp_path, [name])] == [name]
