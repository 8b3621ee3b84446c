"""--defuse-correct: finetune, gate the corrected model, write it only when every bound holds."""

import json
from collections.abc import Callable

import pytest
from safetensors import safe_open

from pytest_defuse.scenarios.store import Scenario

from .conftest import CONFTEST, TESTS, tree

Accept = Callable[..., Scenario]


def test_a_model_that_can_be_mended(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.495)
    (project.path / "toy.pt").write_bytes(b"the old weights")
    before = tree(project.path)
    project.runpytest_subprocess().assert_outcomes(passed=1, failed=1)
    result = project.runpytest_subprocess("--defuse-correct")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "lambda*",
            "before*",
            "0 (control)*",
            f"{scenario.id}*0.0%*16/16*holds*",
            "every bound holds: wrote toy.defused.safetensors",
        ]
    )
    after = tree(project.path)
    assert set(after) - set(before) == {"toy.defused.safetensors"}
    assert before.items() <= after.items(), "the old weights and the store are as they were"
    with safe_open(project.path / "toy.defused.safetensors", framework="pt") as checkpoint:
        assert sorted(checkpoint.keys()) == ["head.bias", "head.weight", "scale", "threshold"]
        metadata = json.loads(checkpoint.metadata()["pytest-defuse"])
    assert metadata["problems"] == []
    assert metadata["accuracy before and after"][scenario.id] == [0.0, 1.0]
    assert list(metadata["scenarios"]) == [scenario.id]


def test_a_model_that_misses_its_bounds(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.2)  # these are dark: no model can call them bright and keep its test accuracy
    (project.path / "toy.defused.safetensors").write_bytes(b"an earlier success")
    result = project.runpytest_subprocess("--defuse-correct")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"nearest miss: {scenario.id}, *against 90.0%",
            "*nothing was overwritten; the attempt is toy.failed-attempt.safetensors",
        ]
    )
    assert (project.path / "toy.defused.safetensors").read_bytes() == b"an earlier success"
    assert (project.path / "toy.failed-attempt.safetensors").exists()


def test_a_scenario_that_no_test_judged(project: pytest.Pytester, accept: Accept) -> None:
    judged, other = accept(mean=0.495), accept(mean=0.496)
    result = project.runpytest_subprocess("--defuse-correct", "-k", judged.id)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"no test judged {other.id}: run the whole gate", "*the attempt is *"])


def test_a_shift_set_that_got_worse(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    # On this set dark reaches up to 0.498: what mends the scenario breaks it.
    shift = "return subject(shifts={'dusk': [(torch.full((1, 8, 8), 127, dtype=torch.uint8), 0)] * 20})"
    project.makeconftest(CONFTEST.replace("return subject()", shift))
    project.makepyfile(test_model=TESTS.replace("min_accuracy=0.9", "min_accuracy=0.9, max_shift_drop=0.02"))
    result = project.runpytest_subprocess("--defuse-correct")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["shift set dusk fell from 100.0% to 0.0%, more than max_shift_drop 2.0%"])
    assert not (project.path / "toy.defused.safetensors").exists()


def test_nothing_to_correct(project: pytest.Pytester, accept: Accept) -> None:
    accept(label=None)
    result = project.runpytest_subprocess("--defuse-correct")
    result.stdout.fnmatch_lines(["There is nothing to correct: no scenario is accepted.*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_no_checkpoint(project: pytest.Pytester, accept: Accept) -> None:
    accept()
    project.makeconftest(CONFTEST.replace("return subject()", "return subject(checkpoint=None)"))
    result = project.runpytest_subprocess("--defuse-correct")
    result.stdout.fnmatch_lines(["Correction writes beside the model's checkpoint: name it with*"])


def test_a_folder_that_cannot_be_written_to(project: pytest.Pytester, accept: Accept) -> None:
    accept()
    (project.path / "weights").write_text("a file where the folder should be")
    project.makeconftest(CONFTEST.replace("return subject()", "return subject(checkpoint='weights/toy.pt')"))
    result = project.runpytest_subprocess("--defuse-correct")
    result.stdout.fnmatch_lines(
        ["weights cannot be written to (*), and the corrected checkpoint goes there: make it *"]
    )
    assert "finetuning" not in result.stdout.str() + result.stderr.str(), "it is refused before the work"
