"""Results as a run makes them, with pictures on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_defuse.correct.results import CorrectionResult, TrialResult
from pytest_defuse.discover.results import CandidateResult, DiscoveryResult
from pytest_defuse.explain.results import ExplanationResult, FailureModeResult, NodeResult, RateResult, TreeResult
from pytest_defuse.gate.checks import Comparison
from pytest_defuse.gate.results import ScenarioResult, TestSetResult
from pytest_defuse.report.results import Results
from pytest_defuse.scenarios.sheets import encode_sheet
from pytest_defuse.statistics.significance import mcnemar


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "fixtures" / "digits"


@pytest.fixture
def add_sheet(store: Path) -> Callable[..., str]:
    """Write a scenario's held-out sheet of random tiles; its folder."""

    def add(scenario_id: str, tiles: int = 16) -> str:
        folder = store / scenario_id
        folder.mkdir(parents=True)
        pixels = torch.randint(0, 256, (tiles, 1, 8, 8), dtype=torch.uint8)
        (folder / "held_out.png").write_bytes(encode_sheet(pixels))
        return str(folder)

    return add


@pytest.fixture
def scenario(store: Path) -> Callable[..., ScenarioResult]:
    """A scenario result: 3s of which ``correct`` of 256 are seen as such, the rest as 5s."""

    def make(scenario_id: str = "3-as-5-a1b2c3", correct: int = 240, **changes: Any) -> ScenarioResult:
        values: dict[str, Any] = {
            "subject": "digits",
            "id": scenario_id,
            "label": "3",
            "folder": str(store / scenario_id),
            "correct": correct,
            "total": 256,
            "confidence": 0.95,
            "outcome": "holds" if correct >= 0.9 * 256 else "fails",
            "bound": 0.9,
            "reason": "min_accuracy",
            "predicted": ["3"] * correct + ["5"] * (256 - correct),
            "images": "1" * 64,
            "model": "2" * 64,
        }
        return ScenarioResult(**(values | changes))

    return make


@pytest.fixture
def tested() -> TestSetResult:
    return TestSetResult("digits", 974, 1000, ["3"] * 1000, "3" * 64, "2" * 64)


@pytest.fixture
def candidate(store: Path) -> Callable[..., CandidateResult]:
    """A candidate of 9s that the model takes for 4s."""

    def make(candidate_id: str = "9-as-4-d4e5f6", **changes: Any) -> CandidateResult:
        values: dict[str, Any] = {
            "id": candidate_id,
            "folder": str(store / candidate_id),
            "proposed_label": "9",
            "predicted": {"4": 200, "9": 56},
            "failed": 410,
            "drawn": 512,
            "facts": ["candidate, proposed label 9", "410/512 of fresh draws failed"],
        }
        return CandidateResult(**(values | changes))

    return make


@pytest.fixture
def discovery(candidate: Callable[..., CandidateResult]) -> Callable[..., DiscoveryResult]:
    """A discovery with one new candidate and a known one."""

    def make(**changes: Any) -> DiscoveryResult:
        values: dict[str, Any] = {
            "subject": "digits",
            "accuracy": 0.991,
            "reconstruction_accuracy": 0.962,
            "judge_accuracies": [0.97, 0.968],
            "failures": 1234,
            "regions": 9,
            "new": [candidate()],
            "known": ["7-as-1-0a0b0c"],
            "seconds": 84.2,
        }
        return DiscoveryResult(**(values | changes))

    return make


@pytest.fixture
def correction(tmp_path: Path) -> Callable[..., CorrectionResult]:
    """A correction that chose lambda 1 and holds its bounds."""

    def make(**changes: Any) -> CorrectionResult:
        values: dict[str, Any] = {
            "subject": "digits",
            "validation_source": "a tenth of train",
            "before": TrialResult(0.0, 0.973, 0.21, 0.34),
            "trials": [
                TrialResult(0.0, 0.974, 0.25, 0.38, role="control"),
                TrialResult(1.0, 0.972, 0.93, 0.96, role="chosen"),
            ],
            "chosen": 1.0,
            "shifts": {"scanned": (0.91, 0.905)},
            "output": str(tmp_path / "digits.defused.safetensors"),
            "problems": [],
            "seconds": 31.0,
        }
        return CorrectionResult(**(values | changes))

    return make


@pytest.fixture
def compare() -> Callable[..., Comparison]:
    """A comparison with a baseline that had everything right but ``gained``."""

    def make(images: int, lost: Sequence[int] = (), gained: Sequence[int] = (), **changes: Any) -> Comparison:
        p = mcnemar(len(lost), len(gained))
        values: dict[str, Any] = {
            "images": images,
            "correct": images - len(gained),
            "predicted": [],
            "lost": list(lost),
            "gained": list(gained),
            "same_model": False,
            "p": p,
            "adjusted_p": p,
        }
        return Comparison(**(values | changes))

    return make


@pytest.fixture
def explanation() -> ExplanationResult:
    """A failure mode of depth 1 with its tree, whose nodes carry a figure of one pixel."""
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    leaves = [
        NodeResult(
            "feature 12 <= 0.31", 13, 745, 35, [RateResult("error rate", 0.0174, (0.01, 0.03))], False, pixel, []
        ),
        NodeResult("feature 12 > 0.31", 22, 55, 35, [RateResult("error rate", 0.4, (0.28, 0.53))], True, pixel, []),
    ]
    return ExplanationResult(
        subject="digits",
        features="input of 'head.4' of the model",
        key="3f2a91c0de12",
        groups=14,
        passed_over=6,
        modes=[FailureModeResult("label 9", "feature 12 > 0.31", 0.4, 0.044, 0.63, 55, (0.28, 0.53))],
        trees=[TreeResult("label 9", 0.044, 0.26, (0.17, 0.35), NodeResult("", 35, 800, 35, [], False, "", leaves))],
    )


@pytest.fixture
def everything(
    scenario: Callable[..., ScenarioResult],
    tested: TestSetResult,
    discovery: Callable[..., DiscoveryResult],
    correction: Callable[..., CorrectionResult],
    explanation: ExplanationResult,
) -> Results:
    """One result of every kind, and scenarios of every outcome."""
    return Results(
        scenarios=[
            scenario(before=60),
            scenario("8-as-0-b7c8d9", 101, label="8", before=50),
            scenario("5-as-6-e1f2a3", 29, total=32, outcome="unsure", before=3),
        ],
        test_sets=[tested],
        discoveries=[discovery()],
        corrections=[correction()],
        explanations=[explanation],
    )
