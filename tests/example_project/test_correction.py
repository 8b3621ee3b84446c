import shutil

import pytest
from safetensors import safe_open

from tests.example_project.conftest import Example


@pytest.mark.slow
def test_correction_fixes_the_model_and_keeps_its_accuracy(example: Example) -> None:
    result = example.pytest("--defuse-correct", "tests/test_model.py")
    assert result.returncode == 0, result.stdout
    corrected = example.folder / "digits.defused.safetensors"
    with safe_open(corrected, framework="numpy") as checkpoint:
        assert '"problems": []' in checkpoint.metadata()["pytest-defuse"]
    shutil.move(corrected, example.folder / "digits.safetensors")
    result = example.pytest("tests/test_model.py")
    assert result.returncode == 0, result.stdout
