"""The files that a session leaves."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_defuse.plugin.finish import write_reports
from pytest_defuse.plugin.options import Options
from pytest_defuse.report.results import Results
from pytest_defuse.report.results_file import load_results
from pytest_defuse.report.words import headline, worst_outcome


def test_nothing_asked_nothing_written(options: Options, everything: Results, tmp_path: Path) -> None:
    assert write_reports(options, everything) == []
    assert list(tmp_path.iterdir()) == []


def test_reports_are_written_in_folders_that_need_not_exist(
    options: Options, everything: Results, tmp_path: Path
) -> None:
    names = {"report": "r.html", "summary": "s.md", "results": "r.json", "code_quality": "q.json"}
    report, summary, saved, quality = paths = [tmp_path / "out" / name for name in names.values()]
    assert write_reports(options._replace(**dict(zip(names, paths, strict=True))), everything) == []
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert summary.read_text(encoding="utf-8").startswith("## digits")
    assert load_results(saved, Path()) == everything
    assert [issue["severity"] for issue in json.loads(quality.read_text())] == ["major", "info"]


def test_a_step_summary_is_appended_to(
    options: Options, everything: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step.md"
    step.write_text("# another step\n\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    assert write_reports(options, everything) == []
    assert step.read_text(encoding="utf-8").startswith("# another step\n\n## digits")


def test_an_unwritable_file_is_reported_and_the_others_are_written(
    options: Options, everything: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    (tmp_path / "file").touch()
    named = options._replace(report=tmp_path / "file" / "r.html", summary=tmp_path / "s.md")
    first, second = write_reports(named, everything)
    assert first.startswith(f"{tmp_path / 'file' / 'r.html'} cannot be written (")
    assert second.startswith(f"{tmp_path} cannot be written (")
    assert named.summary is not None
    assert named.summary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "s.md"]


def test_a_run_without_results_says_so_and_keeps_the_baseline(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline, step = tmp_path / "baseline.json", tmp_path / "step.md"
    baseline.write_text("an earlier run's")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    [problem] = write_reports(options._replace(save_baseline=baseline, summary=tmp_path / "s.md"), Results())
    assert problem == f"the baseline {baseline} was not written: no test evaluated a model."
    assert baseline.read_text() == "an earlier run's"
    assert not step.exists()
    assert (tmp_path / "s.md").read_text() == "## pytest-defuse: no results\n"


def test_the_heading_counts_failed_tests(everything: Results) -> None:
    results = replace(everything, failed=("tests/test_model.py::test_accuracy",))
    assert "1 test FAILED" in headline(results)
    assert worst_outcome(replace(Results(), failed=("test_accuracy",))) == "FAIL"
