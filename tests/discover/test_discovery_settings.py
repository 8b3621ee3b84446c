import math
from dataclasses import asdict
from typing import Any

import pytest

from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.errors import DefuseError


def test_what_is_not_given_is_the_default() -> None:
    assert DiscoverySettings.of({}) == DiscoverySettings()
    changed = {"draws": 7, "noise": 0.25, "tau": 1}
    assert asdict(DiscoverySettings.of(changed)) == asdict(DiscoverySettings()) | changed


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DefuseError, match="has no setting 'drawz': it has mode, budget, draws, noise, "):
        DiscoverySettings.of({"draws": 7, "drawz": 8})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("draws", True),
        ("noise", False),
        ("draws", 0),
        ("draws", -3),
        ("noise", 0.0),
        ("noise", -0.1),
        ("draws", 40.0),
        ("draws", "40"),
        ("noise", "0.4"),
        ("noise", None),
        ("noise", [0.4]),
        ("noise", math.nan),
        ("noise", math.inf),
    ],
)
def test_a_value_that_is_no_number_above_zero_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(DefuseError) as error:
        DiscoverySettings.of({"rho": 0.5, name: value})
    assert str(error.value) == f"defuse_discover({name}={value!r}): give a number above 0."


@pytest.mark.parametrize("name", ["rho", "confidence", "min_weight", "max_overlap", "worst_reconstruction"])
@pytest.mark.parametrize("value", [1, 1.0, 3, 0])
def test_a_share_lies_between_0_and_1(name: str, value: float) -> None:
    with pytest.raises(DefuseError) as error:
        DiscoverySettings.of({name: value})
    assert str(error.value) == f"defuse_discover({name}={value!r}): give a number between 0 and 1."


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("mode", "fast", "default or gradient or paper"),
        ("clustering", ["plain"], "joint or plain"),
        ("backend", 3, "torch or scikit-learn"),
        ("generator", "gan", "default or paper"),
    ],
)
def test_what_is_chosen_by_name_is_one_of_a_few(name: str, value: Any, choices: str) -> None:
    with pytest.raises(DefuseError) as error:
        DiscoverySettings.of({name: value})
    assert str(error.value) == f"defuse_discover({name}={value!r}): give {choices}."


def test_the_mode_of_the_papers_has_the_papers_values() -> None:
    paper = DiscoverySettings.of({"mode": "paper", "draws": 100})
    assert (paper.draws, paper.cap, paper.a, paper.b, paper.components) == (100, 100, 50, 50, 100)
    assert (paper.clustering, paper.restarts, paper.min_weight) == ("plain", 1, 0.01)
