import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.scenario import Scenario, scenario_id
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import FIRST, SECOND, exclude


def test_a_git_lfs_pointer_in_place_of_a_picture_is_said_when_it_is_needed(store: Store, scenario: Scenario) -> None:
    scenario.sheet_file("held_out").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert store.scenarios() == [scenario]
    with pytest.raises(DefuseError, match=r"held_out\.png is a Git LFS pointer"):
        scenario.pixels("held_out")


def test_excluded_tiles_are_left_out_of_their_split(scenario: Scenario) -> None:
    changed = exclude(scenario, "held_out", 4, 1)
    np.testing.assert_array_equal(changed.pixels("held_out"), SECOND[[0, 2, 3, 5]])
    np.testing.assert_array_equal(changed.pixels("correction"), FIRST)


@given(label=st.text(), prediction=st.text(), sha256=st.text("0123456789abcdef", min_size=64, max_size=64))
@example("../../etc/passwd", "C:\\x", "0" * 64)
@example("猫", "犬", "0" * 64)
@example("Trains/Trams & Buses " * 20, "ß", "0" * 64)
@example("", "", "0" * 64)
def test_an_id_is_a_plain_folder_name_whatever_the_classes_are_called(label: str, prediction: str, sha256: str) -> None:
    name = scenario_id(label, prediction, sha256)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,47}", name)
    assert name.endswith(f"-{sha256[:6]}")
    assert scenario_id(label, prediction, sha256) == name


def test_an_id_can_be_read() -> None:
    assert scenario_id("3", "5", "a1b2c3" * 10) == "3-as-5-a1b2c3"
    assert scenario_id("Tabby Cat", "dog/wolf", "a1b2c3" * 10) == "tabby-cat-as-dog-wolf-a1b2c3"
