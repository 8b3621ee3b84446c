"""A model repository as small as it gets: bright and dark images, and a model whose threshold is too high."""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pytest_defuse
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.sheets import Pixels, pixel_hash
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import plant

# Inner runs share this process: importing torch and scikit-learn again would take seconds in each. pytester forgets
# the modules that a run imports, which extension modules do not survive, so this imports all that a run can need.
# With `pytest --runpytest subprocess` each has its own process.
for module in pkgutil.walk_packages(pytest_defuse.__path__, "pytest_defuse."):
    importlib.import_module(module.name)
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])  # torch imports a part of itself with the first optimizer

CONFTEST = """
import pytest, pytest_defuse, torch
from torch.utils.data import TensorDataset

def images(count, seed):
    # Dark images have a mean of 0.1 to 0.3, bright ones of 0.6 to 0.9.
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    means = torch.where(labels == 1, 0.6 + 0.3 * torch.rand(count, generator=random),
                        0.1 + 0.2 * torch.rand(count, generator=random))
    pixels = (means[:, None, None, None] * 255 + 10 * torch.randn(count, 1, 8, 8, generator=random))
    return TensorDataset(pixels.clamp(0, 255).to(torch.uint8), labels)

class Threshold(torch.nn.Module):
    # Bright above a mean of 0.5: right on all images above, wrong on the scenarios between.
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(8.0))
        self.threshold = torch.nn.Parameter(torch.tensor(0.5))
        self.head = torch.nn.Linear(1, 2)
        torch.nn.init.constant_(self.head.bias, 0.0)
        self.head.weight.data = torch.tensor([[-1.0], [1.0]])

    def forward(self, images):
        return self.head(self.scale * (images.mean(dim=(1, 2, 3))[:, None] - self.threshold))

def subject(**changes):
    settings = dict(name="toy", model=Threshold(), classes=["dark", "bright"], train=images(2560, 0),
                    test=images(200, 1), checkpoint="toy.pt")
    return pytest_defuse.Subject(**{**settings, **changes})

@pytest.fixture(scope="session")
def defuse_subject():
    return subject()
"""

TESTS = """
import pytest

@pytest.mark.defuse(min_accuracy=0.9)
def test_scenario(defuse_scenario):
    defuse_scenario.check()

def test_accuracy(defuse_test_accuracy):
    assert defuse_test_accuracy >= 0.97
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The repository: its conftest.py and tests, no scenario yet; its terminal is wide enough for any sentence."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_model=TESTS)
    return pytester


@pytest.fixture
def accept(project: pytest.Pytester) -> Callable[..., Scenario]:
    """Stores a scenario of images of one brightness, accepted by default."""

    def store_scenario(mean: float = 0.45, label: str | None = "bright", **changes: object) -> Scenario:
        store = Store(project.path / "fixtures" / "toy")
        correction, held_out = tiles(mean, 0), tiles(mean, 1)
        record = {
            "status": "candidate" if label is None else "accepted",
            "label": label,
            "failure_rate": {"failed": 60, "drawn": 64, "low": 0.85, "high": 0.98},
            "sheets": {"correction": sheet(correction), "held_out": sheet(held_out)},
        }
        return plant(store, correction, held_out, "bright", "dark", ("dark", "bright"), **record | changes)

    return store_scenario


def tiles(mean: float, seed: int) -> Pixels:
    """16 images whose mean is within 0.002 of ``mean``."""
    noise = np.random.default_rng(seed).normal(scale=0.005, size=(16, 1, 8, 8))
    return ((mean + noise).clip(0, 1) * 255).round().astype(np.uint8)


def sheet(pixels: Pixels) -> dict[str, object]:
    """A sheet's record, with what the toy's model predicts for such images."""
    predicted = "bright" if pixels.mean() / 255 > 0.5 else "dark"
    return {"images": len(pixels), "sha256": pixel_hash(pixels), "predicted": {predicted: len(pixels)}}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, but for caches and what pytester itself keeps there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not any(part.startswith((".", "__pycache__", "stdout", "stderr")) for part in path.relative_to(folder).parts)
    }
