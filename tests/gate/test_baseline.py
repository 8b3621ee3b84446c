import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.baseline import Baseline, Predictions, load_baseline, save_baseline

predictions = st.builds(Predictions, images=st.text(max_size=9), predicted=st.lists(st.text(), min_size=1, max_size=5))
by_name = st.dictionaries(st.text(max_size=9), predictions, max_size=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "baseline.json"


@pytest.fixture
def baseline() -> Baseline:
    """3 of 4 images of a scenario were the label."""
    seen = Predictions("1" * 64, ["3", "3", "5", "3"])
    return Baseline("m" * 64, {"3-as-5-a1b2c3": seen}, {"digits": Predictions("2" * 64, ["0", "1"])})


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(baseline=st.builds(Baseline, model=st.text(max_size=9), scenarios=by_name, test=by_name))
def test_a_baseline_is_loaded_as_it_was_saved(path: Path, baseline: Baseline) -> None:
    save_baseline(path, baseline)
    assert load_baseline(path) == baseline


def test_saving_makes_the_folder_and_leaves_one_file(tmp_path: Path, baseline: Baseline) -> None:
    path = tmp_path / "artifacts" / "main" / "baseline.json"
    save_baseline(path, baseline)
    save_baseline(path, baseline)
    assert load_baseline(path) == baseline
    assert list(path.parent.iterdir()) == [path]


def test_the_baselines_accuracy_counts_the_label(baseline: Baseline) -> None:
    assert baseline.accuracy("3-as-5-a1b2c3", "1" * 64, "3") == 0.75
    assert baseline.accuracy("3-as-5-a1b2c3", "1" * 64, "5") == 0.25  # relabelled since
    assert baseline.accuracy("3-as-5-a1b2c3", "1" * 64, "8") == 0


def test_a_scenario_that_is_new_has_no_baseline(baseline: Baseline) -> None:
    assert baseline.accuracy("8-as-5-a1b2c3", "1" * 64, "8") is None


def test_a_baseline_of_other_images_is_refused(baseline: Baseline) -> None:
    with pytest.raises(DefuseError, match="The baseline's images of scenario 3-as-5-a1b2c3 are not the store's"):
        baseline.accuracy("3-as-5-a1b2c3", "9" * 64, "3")


def test_a_baseline_that_is_missing_is_answered_with_how_to_make_it(path: Path) -> None:
    with pytest.raises(DefuseError) as caught:
        load_baseline(path)
    assert str(caught.value) == (
        f"The baseline {path} cannot be read (No such file or directory): make it with --defuse-save-baseline {path}."
    )


@pytest.mark.parametrize("content", [b"", b"{", b"no json", b"\xff\xfe", b"[]", b"null", b"1", b'"text"', b"{}"])
def test_a_file_that_is_no_baseline_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DefuseError, match="is not a baseline: make it anew"):
        load_baseline(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scenarios": []},
        {"test": None},
        {"model": ...},
        {"scenarios": {"a": {}}},
        {"scenarios": {"a": {"images": "1", "predicted": []}}},
        {"scenarios": {"a": {"images": "1", "predicted": "3"}}},
        {"scenarios": {"a": {"images": "1", "predicted": 3}}},
        {"scenarios": {"a": {"images": "1", "predicted": [3, 5]}}},
        {"scenarios": {"a": {"images": None, "predicted": ["3"]}}},
        {"test": {"digits": {"images": "1", "predicted": ["3"], "more": 1}}},
    ],
    ids=str,
)
def test_a_baseline_with_wrong_parts_is_refused(path: Path, baseline: Baseline, changes: dict[str, Any]) -> None:
    save_baseline(path, baseline)
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    with pytest.raises(DefuseError, match="is not a baseline: make it anew"):
        load_baseline(path)


def test_another_format_is_refused_by_name(path: Path, baseline: Baseline) -> None:
    save_baseline(path, baseline)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(DefuseError, match="has baseline format 2, this pytest-defuse reads format 1"):
        load_baseline(path)
