"""The results of a run as a file, and everything rendered from it again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_defuse.cli import main
from pytest_defuse.report.html import render_html
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results import Results
from pytest_defuse.report.saved import dump_results, load_results
from pytest_defuse.runtime.errors import DefuseError


@pytest.fixture
def saved(everything: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in the folder in which pytest ran."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "results.json"
    path.write_text(dump_results(everything, tmp_path), encoding="utf-8")
    return path


def test_results_survive(everything: Results, saved: Path, tmp_path: Path) -> None:
    assert load_results(saved, tmp_path) == everything


def test_paths_are_of_the_repository_not_of_the_machine(everything: Results, saved: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in saved.read_text()
    elsewhere = load_results(saved, tmp_path / "another checkout")
    assert elsewhere.scenarios[0].folder == str(
        tmp_path / "another checkout" / "fixtures" / "digits" / everything.scenarios[0].id
    )


def test_a_report_rendered_again_is_the_report(
    everything: Results, saved: Path, tmp_path: Path, add_sheet: Callable[..., str]
) -> None:
    add_sheet(everything.scenarios[0].id)
    assert main(["report", str(saved), "--html", "again.html", "--markdown", "again.md"]) == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == render_html(everything)
    assert (tmp_path / "again.md").read_text(encoding="utf-8") == render_markdown(everything)


def test_nothing_asked_is_the_terminal_with_all_details(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(saved)]) == 0
    said = capsys.readouterr().out
    assert "8-as-0-b7c8d9" in said
    assert "again: pytest -k 8-as-0-b7c8d9" in said


def test_annotations_are_printed(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(saved), "--annotations"]) == 0
    assert capsys.readouterr().out.startswith("::error file=fixtures/digits/8-as-0-b7c8d9/scenario.yaml,line=1,")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no results of a run"),
        ('{"format": 99}', "has format 99, but this pytest-defuse reads formats up to 1: upgrade it"),
        ('{"format": 1, "scenarios": [{"id": 3}]}', "scenarios.0.subject: is missing"),
    ],
)
def test_a_wrong_file_is_said(content: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    assert main(["report", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(str(path))
    assert sentence in told
    assert "Traceback" not in told


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DefuseError, match=r"cannot be read \(.+\): make it with"):
        load_results(tmp_path / "none.json", tmp_path)


def test_other_tools_find_their_way(everything: Results, saved: Path) -> None:
    data: dict[str, Any] = json.loads(saved.read_text())
    assert {s["id"]: s["outcome"] for s in data["scenarios"]} == {s.id: s.outcome for s in everything.scenarios}


def test_a_newer_field_is_no_obstacle(everything: Results, saved: Path, tmp_path: Path) -> None:
    data = json.loads(saved.read_text())
    data["scenarios"][0]["mood"] = "fine"
    saved.write_text(json.dumps(data))
    assert load_results(saved, tmp_path) == replace(everything)
