"""Claim: a gate over 20 scenarios of 256 images takes at most 1.15 times as long as a bare script.

python benchmarks/gate.py

The bare script loads the same model and classifies the images of the same sheets, one sheet per batch (the gate uses
half of that, which is faster on a CPU). Both are timed as whole processes, in turns. pytest loads no third-party
plugins except pytest-defuse. Exits with 1 if the claim does not hold.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pytest_defuse.scenarios.machine import MachineRecord, Tiles
from pytest_defuse.scenarios.scenario import scenario_id
from pytest_defuse.scenarios.schema import FORMAT, FailureRate, Provenance, ScenarioRecord, Sheets, StoreRecord
from pytest_defuse.scenarios.sheets import Pixels, sheet_record, tile_format
from pytest_defuse.scenarios.store import Store

PAIRS = 7
SCENARIOS = 20
LIMIT = 1.15

NET = """
import torch
from safetensors.torch import load_model
from torch import nn

# The network of the example project: 12 million multiply-adds per image.
def net():
    features = (nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25))
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))

def loaded():
    model = net()
    load_model(model, "net.safetensors")
    return model
"""

BARE = """
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from net import loaded

model = loaded().eval()
with torch.inference_mode():
    for sheet in sorted(Path("fixtures/bench").glob("*/held_out.png")):
        cells = np.array(Image.open(sheet)).reshape(16, 28, 16, 28).transpose(0, 2, 1, 3).reshape(256, 1, 28, 28)
        predicted = model(torch.from_numpy(cells).float() / 255).argmax(1)
        print(sheet.parent.name, (predicted == 0).float().mean().item())
"""

CONFTEST = """
import pytest
import pytest_defuse
import torch
from net import loaded
from torch.utils.data import TensorDataset

@pytest.fixture(scope="session")
def defuse_subject():
    data = TensorDataset(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10))
    return pytest_defuse.Subject("bench", loaded(), list("0123456789"), data, data)
"""

TESTS = """
import pytest

@pytest.mark.defuse(max_drop=0.02, max_flips=10, confidence=0.95)
def test_scenario(defuse_scenario):
    defuse_scenario.check()
"""


def build(folder: Path) -> None:
    """Create a repository with a model and its scenarios."""
    files = {"net.py": NET, "bare.py": BARE, "conftest.py": CONFTEST, "test_model.py": TESTS}
    for name, text in (files | {"pytest.ini": "[pytest]\npythonpath = .\n"}).items():
        (folder / name).write_text(text)
    code = "import torch; torch.manual_seed(0); from net import net; from safetensors.torch import save_model; "
    subprocess.run([sys.executable, "-c", code + "save_model(net(), 'net.safetensors')"], cwd=folder, check=True)
    store = Store(folder / "fixtures" / "bench")
    random = np.random.default_rng(0)
    for _ in range(SCENARIOS):
        correction, held_out = (random.integers(256, size=(256, 1, 28, 28), dtype=np.uint8) for _ in range(2))
        add(store, correction, held_out)


def add(store: Store, correction: Pixels, held_out: Pixels) -> None:
    """Store an accepted scenario with a region of 16 dimensions."""
    store.open_for(StoreRecord.of("0123456789", tile_format(held_out)))
    factor = np.random.default_rng(0).normal(size=(16, 16))
    predicted = ["1"] * 256
    machine = MachineRecord(
        format=FORMAT,
        correction=Tiles(predicted=predicted),
        held_out=Tiles(predicted=predicted),
        region={
            "generator": "c" * 64,
            "weight": 0.1,
            "tau": 0.5,
            "mean": np.random.default_rng(0).normal(size=16).tolist(),
            "covariance": (factor @ factor.T).tolist(),
        },
    )
    sheets = Sheets(correction=sheet_record(correction, predicted), held_out=sheet_record(held_out, predicted))
    record = ScenarioRecord(
        format=FORMAT,
        id=scenario_id("0", "1", sheets.held_out.sha256),
        status="accepted",
        label="0",
        proposed_label="0",
        failure_rate=FailureRate(failed=256, drawn=256, low=0.985, high=1),
        tile=tile_format(held_out),
        sheets=sheets,
        method="defuse",
        provenance=Provenance(model="a" * 64, data="b" * 64, seed=0, versions={}),
        machine=machine.sha256,
    )
    store.add(record, machine, correction, held_out)


def seconds(folder: Path, *command: str) -> float:
    """The time of one Python process."""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    """Print the table; return 0 if the claim holds."""
    commands = {"bare script": ("bare.py",), "gate": ("-m", "pytest", "-p", "pytest_defuse.plugin")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        for command in commands.values():
            seconds(folder, *command)
        # The first gate saves the baseline that the timed ones compare with.
        seconds(folder, *commands["gate"], "--defuse-save-baseline=baseline.json")
        commands["gate"] += ("--defuse-baseline=baseline.json",)
        pairs = []
        for number in range(PAIRS):
            order = list(commands.items())[:: 1 if number % 2 else -1]
            pairs.append({kind: seconds(folder, *command) for kind, command in order})
    ratios = sorted(pair["gate"] / pair["bare script"] for pair in pairs)
    ratio = statistics.median(ratios)
    print(f"{SCENARIOS} scenarios of 256 images, {PAIRS} pairs of runs, seconds")
    print(f"{'':14}{'median':>9}{'lowest':>9}{'highest':>9}")
    rows = {kind: sorted(pair[kind] for pair in pairs) for kind in commands} | {"ratio": ratios}
    for kind, times in rows.items():
        print(f"{kind:14}" + "".join(f"{n:9.2f}" for n in (statistics.median(times), times[0], times[-1])))
    print(f"the gate takes {ratio:.2f} times as long as the bare script; claim: at most {LIMIT}")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
