"""The results of a run as a file, also one of an earlier version, and the reports that are rendered from it."""

import ast
import contextlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_defuse.cli import main
from pytest_defuse.discover.results import CandidateResult
from pytest_defuse.report.html import render_html
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results import Results
from pytest_defuse.report.results_file import dump_results, load_results
from pytest_defuse.rules.rates import Cluster
from pytest_defuse.runtime.errors import DefuseError
from tests.siege.bounded import outcomes


@pytest.fixture
def saved(everything: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in the folder in which pytest ran."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "results.json"
    path.write_text(dump_results(everything, tmp_path), encoding="utf-8")
    return path


def test_results_survive(everything: Results, saved: Path, tmp_path: Path) -> None:
    assert load_results(saved, tmp_path) == everything


def test_paths_are_relative(
    everything: Results, candidate: Callable[..., CandidateResult], saved: Path, tmp_path: Path
) -> None:
    [explanation] = everything.explanations
    new = replace(everything, explanations=[replace(explanation, new=[candidate()])])
    saved.write_text(dump_results(new, tmp_path))
    assert str(tmp_path) not in saved.read_text()
    assert load_results(saved, tmp_path) == new
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
    text = capsys.readouterr().out
    assert "8-as-0-b7c8d9" in text
    assert "repeat: pytest -k 8-as-0-b7c8d9" in text


def test_annotations_are_printed(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(saved), "--annotations"]) == 0
    assert capsys.readouterr().out.startswith("::error file=fixtures/digits/8-as-0-b7c8d9/scenario.yaml,line=1,")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"format": 0}', "contains no results of a run"),
        ("[]", "contains no results of a run"),
        ('{"format": 99}', "has format 99, but this pytest-defuse reads formats up to 2: upgrade it"),
        ('{"format": 2, "scenarios": [{"id": "3"}]}', "scenarios.0.subject: is missing"),
        ('{"format": 1, "scenarios": [{"id": "3"}]}', "contains no results in format 1"),
        ('{"format": 1, "scenarios": 3}', "contains no results in format 1"),
    ],
)
def test_invalid_file_is_reported(
    content: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    assert main(["report", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(str(path))
    assert sentence in message
    assert "Traceback" not in message


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DefuseError, match=r"cannot be read \(.+\): make it with"):
        load_results(tmp_path / "none.json", tmp_path)


def test_other_tools_read_derived_figures(everything: Results, saved: Path) -> None:
    data: dict[str, Any] = json.loads(saved.read_text())
    for values, verdict in zip(data["scenarios"] + data["test_sets"], everything.sets, strict=True):
        for name in ("correct", "total", "outcome", "bound", "reason"):
            assert values[name] == getattr(verdict, name)


def test_an_unknown_field_is_ignored(everything: Results, saved: Path, tmp_path: Path) -> None:
    data = json.loads(saved.read_text())
    data["scenarios"][0]["mood"] = "fine"
    saved.write_text(json.dumps(data))
    assert load_results(saved, tmp_path) == replace(everything)


STORED = Path(__file__).parent / "stored" / "results-format-1.json"
"""Written by the last version with format 1: a run with a baseline, and the other kinds of results by hand."""


def test_format_1_is_read(tmp_path: Path) -> None:
    old: dict[str, Any] = json.loads(STORED.read_text())
    names = {"holds": "PASS", "fails": "FAIL", "unsure": "INCONCLUSIVE"}
    results = load_results(STORED, tmp_path)
    assert len(results.scenarios) == 3
    for values, verdict in zip(old["scenarios"] + old["overall"] + old["test_sets"], results.verdicts, strict=True):
        assert verdict.outcome == names[values["outcome"]]
        for name in ("subject", "model", "correct", "total", "confidence", "bound", "reason"):
            assert getattr(verdict, name) == values[name]
        assert verdict.comparison is not None
        for name in ("lost", "gained", "correct", "p"):
            assert getattr(verdict.comparison, name) == values["comparison"][name]
        assert verdict.predictions.baseline == tuple(values["comparison"]["predicted"])
        for check, part in zip(verdict.checks, values["checks"], strict=True):
            assert (check.outcome, check.total) == (names[part["outcome"]], part["images"])
            assert (check.images_needed, check.p) == (part["enough"], part["p"])
    assert {scenario.outcome for scenario in results.scenarios} == set(names.values())
    assert results.scenarios[0].folder == str(tmp_path / "fixtures" / "toy" / "bright-as-dark-7eadc1")
    assert results.test_sets[0].flip_sheet == old["test_sets"][0]["flip_sheet"] != ""
    [correction] = results.corrections
    assert [trial.lambda_ for trial in correction.trials] == [0, 1]
    assert correction.trials[1].learning_rate == 3e-4
    assert correction.trials[1].mean_accuracy == 0.952
    assert (correction.lost, correction.gained, correction.image_passes) == (4, 8, 120_000)
    assert correction.notes == ["shift set scanned: 91.0% before, 90.5% after", "no other region was confirmed"]
    assert correction.flips[0].image == "iVBORw0KGgo="
    assert (correction.classes[0].lost, correction.classes[0].gained) == (4, 1)
    [tree] = results.explanations[0].trees
    assert tree.root.children[0].cluster == Cluster(22, 55, 35, 800)
    assert results.notices == tuple(old["notices"])


def test_format_1_is_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(STORED), "--html", "page.html", "--markdown", "summary.md"]) == 0
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("## toy: 3 scenarios (1 FAIL, 1 INCONCLUSIVE, 1 PASS), 98.3% on the test set")
    assert "error rate 40.0%, 95% interval" in (tmp_path / "page.html").read_text()


def test_format_1_becomes_format_2(tmp_path: Path) -> None:
    results, path = load_results(STORED, tmp_path), tmp_path / "results.json"
    path.write_text(dump_results(results, tmp_path))
    assert json.loads(path.read_text())["format"] == 2
    assert load_results(path, tmp_path) == results


def put(data: Any, keys: str, value: Any) -> None:
    *path, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
    for key in path:
        data = data[key]
    data[last] = value


CONTRADICTIONS: list[tuple[str, Any]] = [
    ("scenarios.0.outcome", "FAIL"),
    ("scenarios.1.outcome", "PASS"),
    ("scenarios.0.total", 255),
    ("scenarios.0.predictions.labels", ["3"]),
    ("scenarios.0.predictions.predicted", []),
    ("scenarios.0.predictions.confidences", [0.5]),
    ("scenarios.0.predictions.baseline", [None] * 300),
    ("scenarios.0.predictions.confidences", [float("inf")] * 256),
    ("scenarios.0.confidence", 0.0),
    ("scenarios.0.tiles", [0, 1]),
    ("scenarios.0.tiles", [*range(255), 10**18]),
    ("scenarios.0.tiles", [*range(255), -1]),
    ("scenarios.0.sheet_tiles", 3),
    (
        "scenarios.0.comparison",
        {"total": 256, "correct": 1, "lost": [256], "gained": [], "p": 1.0, "adjusted_p": 1.0},
    ),
    ("test_sets.0.comparison", {"total": 1, "correct": 1, "lost": [], "gained": [-1], "p": 1.0, "adjusted_p": 1.0}),
    ("discoveries.0.new.0.predicted", {}),
    ("discoveries.0.new.0.predicted", {"4": 0}),
    ("discoveries.0.latent_map", {"labels": ["3"], "failures": 1, "candidates": [], "projections": {"PCA": [[0, 0]]}}),
    (
        "discoveries.0.new.0.novelty",
        {"tiles": [0, 1], "labels": ["3"], "predicted": ["5", "5"], "distances": [0.1, 0.1], "sheet": ""},
    ),
    ("corrections.0.before.mean_scenario", 10**400),
    ("explanations.0.trees.0.root.cluster.images", -1),
    ("explanations.0.trees.0.root.cluster.failures", 10**400),
]


@pytest.mark.parametrize(("keys", "value"), CONTRADICTIONS)
def test_results_that_contradict_themselves_are_one_sentence(
    saved: Path, keys: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(saved.read_text())
    put(data, keys, value)
    saved.write_text(json.dumps(data))
    assert main(["report", str(saved), "--html", "page.html", "--markdown", "page.md"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(str(saved))
    assert message.count("\n") == 1
    assert len(message) < 500
    assert not Path("page.md").exists()


@pytest.mark.parametrize("value", [10**4000, -(10**300), 1e308, "\ud800", "\x00"])
@pytest.mark.parametrize("keys", ["discoveries.0.failures", "scenarios.0.id", "scenarios.0.gap", "scenarios.0.folder"])
def test_odd_values_are_shown_or_refused(
    saved: Path, keys: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(saved.read_text())
    put(data, keys, value)
    saved.write_text(json.dumps(data))
    assert main(["report", str(saved), "--html", "page.html", "--markdown", "page.md"]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


BIG: dict[str, tuple[Callable[[], str], str]] = {
    "many objects": (lambda: '{"format": 2, "scenarios": [' + "{}," * 2**21 + "{}]}", "keys and lists, more than"),
    "a larger file": (lambda: '{"format": 2, "failed": [' + "1," * 2**24 + "1]}", "bytes, more than the limit of"),
    "wrong entries": (lambda: '{"format": 2, "failed": [' + "1," * (2**24 - 50) + "1]}", "failed.0: must be a string"),
    "wrong keys": (
        lambda: (
            '{"format": 2, "discoveries": [{"new": [{"predicted": {'
            + ",".join(f'"{number}": ""' for number in range(290_000))
            + "}}]}]}"
        ),
        "discoveries.0.",
    ),
    "a huge number": (lambda: '{"format": ' + "9" * 5000 + "}", "is not JSON"),
    "deep lists": (lambda: '{"format": 2, "scenarios": ' + "[" * 200_000, "is not JSON"),
    "a deep tree": (
        lambda: '{"format": 2, "explanations": [{"trees": [' + '{"root": {"children": [' * 300 + "]}}" * 300 + "]}]}",
        "",
    ),
}


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of time and memory need fork")


def printed(path: Path) -> tuple[int, str]:
    """What ``pytest-defuse report`` exits with and prints."""
    with contextlib.redirect_stderr(io.StringIO()) as output:
        return main(["report", str(path)]), output.getvalue()


def check_cost(path: Path, sentence: str) -> None:
    (outcome,) = outcomes([partial(printed, path)])
    assert outcome.kind == "value", outcome
    code, message = ast.literal_eval(outcome.text)
    assert code == 2
    assert sentence in message
    assert message.count("\n") == 1


@needs_fork
@pytest.mark.parametrize("name", BIG)
def test_hostile_content_costs_little(name: str, tmp_path: Path) -> None:
    content, sentence = BIG[name]
    (tmp_path / "results.json").write_text(content())
    check_cost(tmp_path / "results.json", sentence)


@needs_fork
def test_300_megabytes_cost_little(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with path.open("w") as file:
        file.truncate(300 * 2**20)
    check_cost(path, "bytes, more than the limit of")


def test_a_pipe_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "results.json")
    assert main(["report", str(tmp_path / "results.json")]) == 2
    assert "it is not a file" in capsys.readouterr().err
