import math
from typing import Any

import pytest
import torch

from pytest_defuse.correct.settings import PAPER_LAMBDAS, CorrectionSettings
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint


def step(model: object, number: int) -> torch.Tensor:
    return torch.zeros(())


def test_the_papers_grid_is_the_literal_mode() -> None:
    assert len(PAPER_LAMBDAS) == 17
    assert (PAPER_LAMBDAS[0], PAPER_LAMBDAS[9], PAPER_LAMBDAS[-1]) == (pytest.approx(1e-10), 0.1, 1000)
    grid = CorrectionSettings(search="grid", batch=32)
    assert grid.lambdas == PAPER_LAMBDAS
    assert CorrectionSettings(search="grid", lambdas=[1, 0, 0.5, 1]).lambdas == (0.5, 1.0), "0 is the control"
    with pytest.warns(DeprecationWarning, match="weights is now called lambdas"):
        assert CorrectionSettings.of({"weights": [0.5]}).lambdas == (0.5,)
    assert (grid.rates, grid.batch, grid.scenario_batch, grid.augment) == ((1e-3,), 32, 256, "none")


@pytest.mark.parametrize(
    "values",
    [
        {"lambdas": [0.1, 1], "rates": (1e-4, 1e-3), "epochs": 3},
        {"optimizer": lambda parameters, rate: torch.optim.SGD(parameters, rate), "loss": torch.nn.CrossEntropyLoss()},
        {"train_step": step, "augment": lambda images: images, "frozen": ["features.*"]},
        {"search": "grid", "schedule": "constant", "batch_norm": "batch", "distill": 0.5, "recheck": False},
    ],
)
def test_settings_come_from_a_marker(values: dict[str, Any]) -> None:
    settings = CorrectionSettings.of(values)
    for name, value in values.items():
        assert getattr(settings, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"epoch": 3},
            r"defuse_correct has no setting 'epoch' \(did you mean 'epochs'\?\): it has search, ",
        ),
        ({"epochs": 0}, r"epochs=0\): give a whole number >= 1\.$"),
        ({"lambdas": [0]}, r"lambdas=\[0\]\): give a list of numbers >= 0, at least one > 0\.$"),
        ({"lambdas": [math.nan]}, "give a list of numbers >= 0"),
        ({"rates": []}, "give a list of one or more numbers > 0"),
        ({"alphas": [0]}, "give a list of one or more numbers > 0 and <= 1"),
        ({"optimizer": "lion"}, "give 'adam', 'adamw', 'sgd' or a function"),
        ({"frozen": "features"}, "give a list of strings"),
        ({"loss": "hinge"}, "give a function"),
        ({"max_test_drop": 5}, "give a number from 0 to 1"),
        (
            {"distill": 0.5, "train_step": step},
            r"^defuse_correct\(distill=\.\.\., train_step=\.\.\.\): .* remove one of",
        ),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(values: dict[str, Any], words: str) -> None:
    with pytest.raises(DefuseError, match=words):
        CorrectionSettings.of(values)


def test_a_cosine_falls_from_the_rate_to_nothing() -> None:
    settings = CorrectionSettings()
    rates = [settings.rate_at(0.1, done / 100) for done in range(100)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-4
    assert CorrectionSettings(schedule="constant").rate_at(0.1, 0.9) == 0.1


def test_a_changed_function_is_another_setting() -> None:
    first, second = (
        CorrectionSettings(augment=lambda images: images / 2),
        CorrectionSettings(augment=lambda images: images / 3),
    )
    assert fingerprint("a", **first.training) != fingerprint("a", **second.training)


def test_bounds_and_lambdas_do_not_change_training() -> None:
    assert CorrectionSettings(lambdas=(1.0,), max_test_drop=0.5, aim=0.9).training == CorrectionSettings().training
    assert CorrectionSettings(batch=7).training != CorrectionSettings().training
