import math
import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pytest
from pydantic import ValidationError

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.settings import Count, NonNegative, OpenShare, Positive, Settings, Share, setting


class Toy(Settings):
    marker: ClassVar = "defuse_toy"
    presets: ClassVar = {("mode", "paper"): {"draws": 500, "rates": (1.0,)}}
    renamed: ClassVar = {"number": "draws"}

    mode: Literal["default", "gradient", "paper"] = setting("default", "How.")
    draws: Count = setting(10, "How many.", "a paper")
    depth: int = setting(1, "How deep.", ge=1, le=3)
    noise: Positive = setting(0.4, "How loud.")
    rho: OpenShare = setting(0.5, "How often.")
    floor: NonNegative = setting(0.0, "How low.")
    bound: Share | None = setting(None, "How good.")
    rates: tuple[Positive, ...] = setting((0.1,), "How fast.", strict=False, min_length=1)
    only: tuple[str, ...] = setting((), "Which.", strict=False)
    schedule: Literal["cosine"] | Callable[[int], float] = setting("cosine", "When.")
    again: bool = setting(False, "Whether.")


def test_settings_are_given_by_keyword_or_by_a_mapping() -> None:
    values = {"draws": 7, "noise": 1, "rates": [0.1, 1], "bound": 0, "only": ["a"], "schedule": math.sqrt}
    settings = Toy(**values)
    assert settings == Toy.of(values)
    assert (settings.draws, settings.rates, settings.only) == (7, (0.1, 1.0), ("a",))
    assert type(settings.noise) is float, "equal settings have equal texts"
    assert Toy.of({}) == Toy()


def test_settings_are_keys_and_copies_are_checked() -> None:
    settings = Toy(draws=7)
    assert {settings: 1}[Toy(draws=7)] == 1
    changed = settings.replace(noise=0.1)
    assert (changed.draws, changed.noise, settings.noise) == (7, 0.1, 0.4)
    with pytest.raises(DefuseError, match=re.escape("Toy(noise=-1): give a number > 0.")):
        settings.replace(noise=-1)
    with pytest.raises(ValidationError):
        settings.draws = 8


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("mode", "'default', 'gradient' or 'paper'", ["fast", ["paper"], None, 1]),
        ("draws", "a whole number >= 1", [0, -1, 1.0, "1", True, None, [1]]),
        ("depth", "a whole number from 1 to 3", [0, 4, 2.0]),
        ("noise", "a number > 0", [0, -0.1, "0.4", False, None, [0.4], math.nan, math.inf]),
        ("rho", "a number > 0 and < 1", [0, 1, 0.0, 1.0, 50]),
        ("floor", "a number >= 0", [-1e-9]),
        ("bound", "a number from 0 to 1", [-0.1, 1.1, 90, "0.9", True, math.nan]),
        ("rates", "a list of one or more numbers > 0", [0.1, [], [0.1, 0], [0.1, True], ["0.1"]]),
        ("only", "a list of strings", ["a", [1]]),
        ("schedule", "'cosine' or a function", ["linear", 3]),
        ("again", "True or False", [1, "true", None]),
    ],
)
def test_a_wrong_value_gets_one_sentence_from_its_declaration(name: str, allowed: str, refused: list[Any]) -> None:
    assert Toy.allowed(name) == allowed
    for value in refused:
        with pytest.raises(DefuseError) as error:
            Toy.of({"draws": 5, name: value})
        assert str(error.value) == f"defuse_toy({name}={value!r}): give {allowed}."


def test_the_sentence_names_where_the_value_was_written() -> None:
    for make, sentence in (
        (lambda: Toy(depth=7), "Toy(depth=7): give "),
        (lambda: Toy.of({"depth": 7}), "defuse_toy(depth=7): give "),
        (lambda: Toy.of({"depth": 7}, "ini key x"), "ini key x: depth=7: give "),
    ):
        with pytest.raises(DefuseError) as error:
            make()
        assert str(error.value) == f"{sentence}a whole number from 1 to 3."


def test_an_unknown_name_is_answered_with_the_closest_and_all_names() -> None:
    with pytest.raises(
        DefuseError, match=r"^defuse_toy has no setting 'drawz' \(did you mean 'draws'\?\): it has mode,"
    ):
        Toy.of({"drawz": 8})
    with pytest.raises(DefuseError, match=r"^Toy has no setting 'zzz': it has mode, draws, .*, again\.$"):
        Toy(zzz=8)


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(DefuseError) as error:
        Toy(depth=list(range(10_000)))
    assert len(str(error.value)) < 100


def test_a_choice_brings_its_defaults_which_other_values_replace() -> None:
    assert (Toy(mode="paper").draws, Toy(mode="gradient").draws) == (500, 10)
    settings = Toy.of({"mode": "paper", "draws": 3})
    assert (settings.draws, settings.rates) == (3, (1.0,))
    assert settings.replace(noise=1).draws == 3
    assert Toy(depth=2).replace(mode="paper") == Toy(depth=2, mode="paper")


def test_an_old_name_is_accepted_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="defuse_toy: number is now called draws"):
        assert Toy.of({"number": 3}).draws == 3
    with pytest.warns(DeprecationWarning, match="Toy: number"), pytest.raises(DefuseError, match="draws=0"):
        Toy(number=0)
    with pytest.raises(DefuseError, match=r"^defuse_toy has both number and draws"):
        Toy.of({"number": 3, "draws": 3})


def test_every_setting_says_what_it_does_and_where_its_default_comes_from() -> None:
    assert Toy.model_fields["draws"].description == "How many."
    assert Toy.origin("draws") == "a paper"
    assert Toy.origin("noise") == "our choice"
