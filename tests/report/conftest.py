"""Results of every kind, and the sheets on disk that reports show."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_defuse.correct.results import CorrectionResult, TrialResult
from pytest_defuse.discover.results import CandidateResult, DiscoveryResult
from pytest_defuse.explain.results import ExplanationResult, FailureModeResult, NodeResult, TreeResult
from pytest_defuse.gate.checks import Check, Comparison, Outcome
from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.gate.results import ScenarioResult, TestSetResult
from pytest_defuse.report.results import Results
from pytest_defuse.rules.rates import Cluster
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


def predictions(labels: Sequence[str], predicted: Sequence[str], **changes: Any) -> LabelledPredictions:
    values: dict[str, Any] = {
        "sha256": "1" * 64,
        "predicted": tuple(predicted),
        "confidences": (),
        "labels": tuple(labels),
        "baseline": (None,) * len(labels),
    }
    return LabelledPredictions(**(values | changes))


def check(outcome: Outcome, **changes: Any) -> Check:
    """``min_accuracy=0.9`` on 256 images; the measured value does not matter."""
    values: dict[str, Any] = {
        "bound": "min_accuracy",
        "group": "",
        "total": 256,
        "measured": 0.5,
        "limit": 0.9,
        "accuracy": 0.9,
        "confidence": 0.95,
        "interval": (0.4, 0.6),
        "reason": "min_accuracy",
    }
    return Check(outcome=outcome, **(values | changes))


@pytest.fixture
def scenario(store: Path) -> Callable[..., ScenarioResult]:
    """The result of a scenario of 256 images of 3, the first ``correct`` of which are predicted as 3, the rest as 5."""

    def make(
        scenario_id: str = "3-as-5-a1b2c3",
        correct: int = 240,
        total: int = 256,
        label: str = "3",
        outcome: Outcome | None = None,
        confidences: Sequence[float] = (),
        predicted: Sequence[str] | None = None,
        **changes: Any,
    ) -> ScenarioResult:
        names = [label] * correct + ["5"] * (total - correct) if predicted is None else predicted
        values: dict[str, Any] = {
            "subject": "digits",
            "model": "2" * 64,
            "predictions": predictions([label] * len(names), names, confidences=tuple(confidences)),
            "checks": (check(outcome or ("PASS" if correct >= 0.9 * total else "FAIL")),),
            "id": scenario_id,
            "label": label,
            "folder": str(store / scenario_id),
            "tiles": tuple(range(len(names))),
            "sheet_tiles": len(names),
        }
        return ScenarioResult(**(values | changes))

    return make


@pytest.fixture
def tested() -> TestSetResult:
    """A test set of 1,000 images of 3, the last 26 of which are predicted as 5."""
    names = ["3"] * 974 + ["5"] * 26
    return TestSetResult(subject="digits", model="2" * 64, predictions=predictions(["3"] * 1000, names))


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
            "active_dimensions": 14,
            "latent_dim": 16,
            "passes": 61_000,
            "judge_passes": 120_500,
        }
        return DiscoveryResult(**(values | changes))

    return make


@pytest.fixture
def correction(tmp_path: Path) -> Callable[..., CorrectionResult]:
    """A correction that chose lambda 1 and passes its bounds."""

    def make(**changes: Any) -> CorrectionResult:
        values: dict[str, Any] = {
            "subject": "digits",
            "validation_source": "a tenth of train",
            "before": TrialResult(0.0, 0.973, 0.21, 0.34),
            "trials": [
                TrialResult(0.0, 0.974, 0.25, 0.38, role="control"),
                TrialResult(1.0, 0.972, 0.93, 0.96, role="chosen"),
            ],
            "output": str(tmp_path / "digits.defused.safetensors"),
            "problems": [],
            "seconds": 31.0,
        }
        return CorrectionResult(**(values | changes))

    return make


@pytest.fixture
def compare() -> Callable[..., Comparison]:
    """A comparison with a baseline that misclassifies only ``gained``."""

    def make(total: int, lost: Sequence[int] = (), gained: Sequence[int] = (), **changes: Any) -> Comparison:
        p = mcnemar(len(lost), len(gained))
        values: dict[str, Any] = {
            "total": total,
            "correct": total - len(gained),
            "lost": list(lost),
            "gained": list(gained),
            "p": p,
        }
        return Comparison(**(values | changes))

    return make


@pytest.fixture
def explanation() -> ExplanationResult:
    """A failure mode of depth 1 with its tree, whose nodes carry a figure of one pixel."""
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    leaves = [
        NodeResult("feature 12 <= 0.31", Cluster(13, 745, 35, 800), False, pixel, []),
        NodeResult("feature 12 > 0.31", Cluster(22, 55, 35, 800), True, pixel, []),
    ]
    root = NodeResult("", Cluster(35, 800, 35, 800), False, "", leaves)
    return ExplanationResult(
        subject="digits",
        features="input of 'head.4' of the model",
        key="3f2a91c0de12",
        groups=14,
        passed_over=6,
        modes=[FailureModeResult("label 9", "feature 12 > 0.31", 0.4, 0.044, 0.63, 55, (0.28, 0.53))],
        trees=[TreeResult("label 9", 0.044, 0.26, (0.17, 0.35), root)],
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
            scenario(correct_before=60),
            scenario("8-as-0-b7c8d9", 101, label="8", correct_before=50),
            scenario("5-as-6-e1f2a3", 29, total=32, outcome="INCONCLUSIVE", correct_before=3),
        ],
        test_sets=[tested],
        discoveries=[discovery()],
        corrections=[correction()],
        explanations=[explanation],
    )
