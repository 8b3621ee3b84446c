import pytest

from pytest_defuse.scenarios.store import Store
from tests.example_project.conftest import Example

SHORTER = """import pytest
from pytest_defuse.discover import discovery
from pytest_defuse.discover.judges import JudgeSettings

discovery.JudgeSettings = lambda: JudgeSettings(min_steps=600)


@pytest.mark.defuse_discover(generator_steps=700)
def test_discovery"""
"""Of the judges' 1,200 steps and the generator's 2,000; the example's own test says whether that is enough."""


@pytest.mark.slow
def test_discovery_finds_failures_on_real_digits(example: Example) -> None:
    test = example.folder / "tests" / "test_discovery.py"
    test.write_text(test.read_text().replace("def test_discovery", SHORTER))
    result = example.pytest("--defuse-discover", "--defuse-store=found", "tests/test_discovery.py")
    assert result.returncode == 0, result.stdout
    candidates = Store(example.folder / "found" / "digits").scenarios("candidate")
    assert candidates
    for candidate in candidates:
        sheet, label = candidate.record.sheets.held_out, candidate.record.proposed_label
        right = sheet.predicted.get(label, 0)
        assert right < 256 / 2, "a region that was confirmed on fresh draws fails on further draws too"
