import errno
import os
from pathlib import Path

import pytest

from pytest_defuse.runtime import json_text
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.json_text import check_json_size, parse_json, read_text


def test_json_is_parsed() -> None:
    assert parse_json('{"a": [1, 2.5, null, "é"], "b": {"a": true}}') == {"a": [1, 2.5, None, "é"], "b": {"a": True}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": 1, "b": 2}', "key 'b' is given twice"),
        ('[{"a": {"b": 1, "b": 2}}]', "key 'b' is given twice"),
        ("[" * 100_000, "it is nested too deeply"),
        ("[" * 400_000, "it has about 400,000 keys and lists, more than the limit of 300,000"),
        ("{", "line 1"),
        ("", "line 1"),
        ("9" * 5000, "digits"),
    ],
)
def test_what_cannot_be_parsed_is_a_value_error(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_a_limit_of_parts_is_given(tmp_path: Path) -> None:
    assert parse_json("[[]]", 2) == [[]]
    with pytest.raises(ValueError, match="it has about 3 keys and lists, more than the limit of 2"):
        parse_json("[[], []]", 2)


def test_the_limit_of_bytes_is_that_of_reading_and_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "MAX_JSON_BYTES", 4)
    path = tmp_path / "a.json"
    path.write_text("1234")
    assert read_text(path, "make it") == "1234"
    check_json_size(4, path)
    path.write_text("12345")
    for work in (lambda: read_text(path, "make it"), lambda: check_json_size(5, path)):
        with pytest.raises(DefuseError, match=r"a\.json has 5 bytes, more than the limit of 4"):
            work()


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf1")
    assert read_text(tmp_path / "a.json", "make it") == "1"


@pytest.mark.parametrize(("name", "words"), [("none", os.strerror(errno.ENOENT)), ("", "it is not a file")])
def test_what_cannot_be_read_says_how_to_make_it(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(DefuseError, match=rf"cannot be read \({words}.*\): make it\."):
        read_text(tmp_path / name, "make it")
