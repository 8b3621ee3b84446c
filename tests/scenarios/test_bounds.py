import re
from typing import Any

import pytest

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.bounds import Bounds


def test_bounds_take_the_names_of_the_marker() -> None:
    values = {
        "min_accuracy": 0.9,
        "max_drop": 0,
        "max_relative_drop": 1,
        "max_flips": 3,
        "per_class": True,
        "max_shift_drop": 0.02,
        "confidence": 0.95,
        "only": ["8-as-5-a1b2c3", "3"],
    }
    bounds = Bounds.of(values)
    assert bounds == Bounds(**{**values, "only": ("8-as-5-a1b2c3", "3")})
    assert Bounds.of({}) == Bounds()
    assert Bounds.of({"only": "3"}).only == ("3",)
    assert hash(bounds) == hash(Bounds.of(values))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("min_accuracy", 90, "a number from 0 to 1"),
        ("max_error_rate", -0.1, "a number from 0 to 1"),
        ("max_increase", "0.9", "a number from 0 to 1"),
        ("max_drop", True, "a number from 0 to 1"),
        ("max_relative_drop", float("nan"), "a number from 0 to 1"),
        ("max_shift_drop", [0.9], "a number from 0 to 1"),
        ("confidence", 1, "a number > 0 and < 1"),
        ("confidence", 0.0, "a number > 0 and < 1"),
        ("max_flips", -1, "a whole number >= 0"),
        ("max_flips", 1.5, "a whole number >= 0"),
        ("per_class", 1, "True or False"),
        ("only", 3, "a list of strings"),
    ],
)
def test_a_wrong_bound_is_refused(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(DefuseError, match=re.escape(f"defuse({name}={value!r}): give {allowed}.")):
        Bounds.of({name: value})


def test_bounds_are_completed_name_by_name() -> None:
    own, marked, options = Bounds(min_accuracy=0.25), Bounds(min_accuracy=0.5, max_flips=0), Bounds(confidence=0.8)
    assert own.over(marked.over(options)) == Bounds(min_accuracy=0.25, max_flips=0, confidence=0.8)
    assert own.over(marked).over(options) == own.over(marked.over(options))
    assert Bounds(min_accuracy=None).over(marked) == Bounds(max_flips=0), "None in a marker takes a bound away"


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("", {}),
        ("min_accuracy=0.9", {"min_accuracy": 0.9}),
        ("min_accuracy = 0.9, max_flips=3", {"min_accuracy": 0.9, "max_flips": 3}),
        ("\n  per_class=true\n  confidence = .95\n", {"per_class": True, "confidence": 0.95}),
    ],
)
def test_bounds_are_read_from_text(text: str, bounds: dict[str, Any]) -> None:
    assert Bounds.parse(text, "ini key x") == Bounds(**bounds)


@pytest.mark.parametrize("text", ["0.9", "min_accuracy", "min_accuracy=", "min_accuracy=0.9 and more", "=0.9"])
def test_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DefuseError, match=f"ini key x is '{text}': write bounds as"):
        Bounds.parse(text, "ini key x")


def test_a_bound_that_is_set_twice_is_refused() -> None:
    with pytest.raises(DefuseError, match=r"ini key x .*: min_accuracy is set twice, keep one"):
        Bounds.parse("min_accuracy=0.9 min_accuracy=0.1", "ini key x")


def test_text_with_a_wrong_value_is_refused() -> None:
    with pytest.raises(DefuseError, match="ini key x: min_accuracy='high': give a number"):
        Bounds.parse("min_accuracy=high", "ini key x")
