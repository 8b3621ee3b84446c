import re
from typing import Any

import pytest

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.bounds import Bounds, parse


def test_bounds_take_the_names_of_the_marker() -> None:
    given = {
        "min_accuracy": 0.9,
        "max_drop": 0,
        "max_relative_drop": 1,
        "max_flips": 3,
        "per_class": True,
        "max_shift_drop": 0.02,
        "confidence": 0.95,
        "only": ["8-as-5-a1b2c3", "3"],
    }
    bounds = Bounds.of(given)
    assert bounds == Bounds(**{**given, "only": ("8-as-5-a1b2c3", "3")})
    assert Bounds.of({}) == Bounds()
    assert Bounds.of({"only": "3"}).only == ("3",)
    assert Bounds.of({"max_flips": 3.0}).max_flips == 3
    assert hash(bounds) == hash(Bounds.of(given))


@pytest.mark.parametrize("name", ["min_accuracy", "max_drop", "max_relative_drop", "max_shift_drop"])
@pytest.mark.parametrize("value", [-0.1, 1.1, 90, "0.9", None, True, float("nan"), [0.9]])
def test_a_share_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(DefuseError, match=re.escape(f"the defuse marker: {name}={value!r}: give a share from 0 to 1")):
        Bounds.of({name: value})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("confidence", 1, "a share between 0 and 1"),
        ("confidence", 0.0, "a share between 0 and 1"),
        ("max_flips", -1, "a whole number of 0 or more"),
        ("max_flips", 1.5, "a whole number of 0 or more"),
        ("max_flips", float("inf"), "a whole number of 0 or more"),
        ("max_flips", True, "a whole number of 0 or more"),
        ("per_class", 1, "true or false"),
        ("only", 3, "ids or labels"),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(DefuseError, match=re.escape(f"the defuse marker: {name}={value!r}: give {wanted}")):
        Bounds.of({name: value})


def test_a_name_that_is_no_bound_is_answered_with_all_names() -> None:
    with pytest.raises(DefuseError, match="ini key x has no bound 'min_acuracy': it has min_accuracy, max_error_rate"):
        Bounds.of({"min_acuracy": 0.9}, "ini key x")


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
    assert parse(text, "ini key x") == bounds


@pytest.mark.parametrize("text", ["0.9", "min_accuracy", "min_accuracy=", "min_accuracy=0.9 and more", "=0.9"])
def test_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DefuseError, match=f"ini key x is '{text}': write bounds as"):
        parse(text, "ini key x")


def test_text_with_a_wrong_value_is_refused() -> None:
    with pytest.raises(DefuseError, match="ini key x: min_accuracy='high': give a share"):
        parse("min_accuracy=high", "ini key x")
