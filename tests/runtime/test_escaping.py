"""Text that is safe to show."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.escaping import encodable, visible


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3-as-5-a1b2c3",
        "na\u00efve \u6551\u6025\u8eca \U0001f691",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f469\u200d\U0001f692",
        "100% of [b] :dog: a::b tests/x.py::test_y",
        r"C:\x1b\data",
    ],
)
def test_visible_text_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\u202edrow\u2066\u200f", r"\u202edrow\u2066\u200f"),
        ("line\u2028\u2029\x85end", r"line\u2028\u2029\x85end"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("::error::x", r"\::error::x"),
        ("cat ::set-output name=x::y", r"cat \::set-output name=x::y"),
        ("##[error]x", r"##\[error]x"),
    ],
)
def test_what_steers_a_terminal_or_a_log_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_newlines_stay_where_lines_are_wanted() -> None:
    assert visible("a\n\t::error::\x1b", lines=True) == "a\n\t\\::error::\\x1b"


@given(st.text() | st.text(alphabet="\x1b\n\r :#[]error\u202e\u2028\u200d\ud800"), st.booleans())
def test_nothing_hidden_is_left_and_twice_is_once(text: str, lines: bool) -> None:
    shown = visible(text, lines=lines)
    assert all(
        unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        or character in "\u200c\u200d"
        or (lines and character in "\n\t")
        for character in shown
    )
    assert not any(word.startswith("::") for word in shown.split())
    assert "##[" not in shown
    assert visible(shown, lines=lines) == shown


@given(st.text(), st.sampled_from(["ascii", "cp1252", "cp437", "utf-8", None]))
def test_any_terminal_can_show_any_text(text: str, encoding: str | None) -> None:
    encodable(visible(text), encoding).encode(encoding or "ascii")


def test_every_error_message_is_safe() -> None:
    assert str(DefuseError("fixtures/\x1b[2J/scenario.yaml\n::error::x")) == (
        "fixtures/\\x1b[2J/scenario.yaml\n\\::error::x"
    )
