import math
from dataclasses import asdict
from typing import Any

import pytest

from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.errors import DefuseError


def test_what_is_not_given_is_the_default() -> None:
    assert DiscoverySettings.of({}) == DiscoverySettings()
    changed = {"draws": 7, "noise": 0.25, "rho": 1}
    assert asdict(DiscoverySettings.of(changed)) == asdict(DiscoverySettings()) | changed


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DefuseError, match="has no setting 'drawz': it has budget, draws, noise, "):
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


def test_a_choice_is_one_of_its_names() -> None:
    assert DiscoverySettings.of({"clustering": "plain", "backend": "scikit-learn"}).clustering == "plain"
    with pytest.raises(DefuseError, match=r"defuse_discover\(clustering='fancy'\): give joint or plain."):
        DiscoverySettings.of({"clustering": "fancy"})
    with pytest.raises(DefuseError, match=r"defuse_discover\(backend=3\): give torch or scikit-learn."):
        DiscoverySettings.of({"backend": 3})
