import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_defuse.gate.baseline import Baseline, SubjectBaseline, load_baseline, save_baseline
from pytest_defuse.gate.predictions import Predictions
from pytest_defuse.runtime.errors import DefuseError

ID = "3-as-5-a1b2c3"


def predictions(sha256: str, *predicted: str) -> Predictions:
    return Predictions(sha256 * 64, predicted, tuple(0.5 + index / 100 for index in range(len(predicted))))


@pytest.fixture
def baseline() -> Baseline:
    return Baseline(
        {
            "digits": SubjectBaseline(
                model="f" * 64,
                scenarios={ID: predictions("1", "3", "3", "5", "3"), "8-as-3-d4e5f6": predictions("2", "ü", 'a "b"')},
                test=predictions("3", "3", "8"),
            ),
            "letters": SubjectBaseline("e" * 64, {}, predictions("4", "a")),
        }
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "baseline.json"


def test_what_was_saved_is_loaded(path: Path, baseline: Baseline) -> None:
    save_baseline(path, baseline)
    assert load_baseline(path) == baseline
    save_baseline(path, Baseline())
    assert load_baseline(path) == Baseline()


def test_a_baseline_is_small_and_one_line_a_set_of_images(path: Path) -> None:
    """In git, a change of one scenario is a change of one line."""
    scenarios = {f"s-{n}": predictions("1", *["three", "eight"] * 128) for n in range(20)}
    save_baseline(path, Baseline({"digits": SubjectBaseline("f" * 64, scenarios, predictions("3", *["three"] * 1000))}))
    assert path.stat().st_size < 100_000
    assert sum('"predicted"' in line for line in path.read_text().splitlines()) == 21


def test_names_come_back_for_the_same_images(baseline: Baseline) -> None:
    digits = baseline.of("digits")
    assert digits.of_scenario(ID, "1" * 64, 4) == ("3", "3", "5", "3")
    assert digits.of_test("3" * 64, 2) == ("3", "8")


def test_images_that_the_baseline_does_not_contain_are_none(baseline: Baseline) -> None:
    assert baseline.of("digits").of_scenario("9-as-4-a1b2c3", "1" * 64, 2) == (None, None)
    assert baseline.of("cats").of_test("3" * 64, 2) == (None, None)


def test_other_images_are_refused(baseline: Baseline) -> None:
    with pytest.raises(DefuseError, match=f"The baseline's images of scenario {ID} are not the store's: save"):
        baseline.of("digits").of_scenario(ID, "9" * 64, 4)
    with pytest.raises(DefuseError, match="The baseline's images of the test set are not the subject's: save"):
        baseline.of("digits").of_test("9" * 64, 2)


def test_a_file_that_cannot_be_read_is_answered_with_how_to_make_it(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DefuseError, match=re.escape(f"make it with --defuse-save-baseline {path}.")):
        load_baseline(path)


@pytest.mark.parametrize("content", [b"", b"{", b"no json", b"\xff\xfe", b"[]", b"null", b"1", b'"text"', b"{}"])
def test_a_file_that_is_no_baseline_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DefuseError, match="is not a baseline: make a new one"):
        load_baseline(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scenarios": []},
        {"test": 3},
        {"model": None},
        {"classes": ["3"]},
        {"more": 1},
        {"scenarios": {"a": {}}},
        {"test": {"images": "1", "predicted": [], "confidences": []}},
        {"test": {"images": "1", "predicted": [-1], "confidences": [0.5]}},
        {"test": {"images": "1", "predicted": ["3"], "confidences": [0.5]}},
        {"test": {"images": "1", "predicted": [0], "confidences": [0.5, 0.5]}},
        {"test": {"images": "1", "predicted": [0], "confidences": [0.5], "more": 1}},
    ],
    ids=str,
)
def test_a_baseline_with_wrong_parts_is_refused(path: Path, baseline: Baseline, changes: dict[str, Any]) -> None:
    save_baseline(path, baseline)
    data = json.loads(path.read_text())
    data["subjects"]["digits"] |= changes
    path.write_text(json.dumps(data))
    with pytest.raises(DefuseError, match="is not a baseline: make a new one"):
        load_baseline(path)


def test_a_baseline_whose_store_was_changed_is_refused(path: Path, baseline: Baseline) -> None:
    save_baseline(path, baseline)
    path.write_text(path.read_text().replace(ID, "3-as-5-000000"))
    with pytest.raises(DefuseError, match="was changed by hand or by a merge: make a new one"):
        load_baseline(path)


@pytest.mark.parametrize("number", [1, 3])
def test_another_format_is_refused_by_name(path: Path, baseline: Baseline, number: int) -> None:
    save_baseline(path, baseline)
    path.write_text(path.read_text().replace('"format": 2', f'"format": {number}'))
    with pytest.raises(DefuseError, match=f"has baseline format {number}, this pytest-defuse reads format 2: make"):
        load_baseline(path)
