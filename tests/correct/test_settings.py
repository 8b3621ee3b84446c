import math
from dataclasses import fields
from typing import Any

import pytest
import torch

from pytest_defuse.correct.settings import ALLOWED, PAPER_WEIGHTS, CorrectionSettings
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint


def step(model: object, number: int) -> torch.Tensor:
    return torch.zeros(())


def test_the_papers_grid_is_the_literal_mode() -> None:
    assert len(PAPER_WEIGHTS) == 17
    assert (PAPER_WEIGHTS[0], PAPER_WEIGHTS[9], PAPER_WEIGHTS[-1]) == (pytest.approx(1e-10), 0.1, 1000)
    assert CorrectionSettings(search="grid").lambdas == PAPER_WEIGHTS


@pytest.mark.parametrize(
    "given",
    [
        {"weights": [0.1, 1], "rates": (1e-4, 1e-3), "epochs": 3},
        {"optimizer": lambda parameters, rate: torch.optim.SGD(parameters, rate), "loss": torch.nn.CrossEntropyLoss()},
        {"train_step": step, "augment": lambda images: images, "frozen": ["features.*"]},
        {"search": "grid", "schedule": "constant", "batch_norm": "batch", "distill": 0.5, "recheck": False},
    ],
)
def test_settings_come_from_a_marker(given: dict[str, Any]) -> None:
    settings = CorrectionSettings.of(given)
    for name, value in given.items():
        assert getattr(settings, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epoch": 3}, r"defuse_correct has no setting 'epoch': it has search, weights, rates, epochs"),
        ({"epochs": 0}, r"epochs=0\): give a whole number of 1 or more"),
        ({"epochs": True}, "whole number"),
        ({"batch": 1.5}, "whole number"),
        ({"weights": [0]}, r"weights=\(0,\)\): give a list of lambdas, at least one above 0"),
        ({"weights": 0.1}, "list of lambdas"),
        ({"weights": [math.nan]}, "list of lambdas"),
        ({"rates": []}, "learning rates"),
        ({"optimizer": "lion"}, "give 'adam' or 'adamw' or 'sgd', or a function"),
        ({"augment": "wild"}, "give 'mild' or 'none', or a function"),
        ({"frozen": "features"}, "list of patterns"),
        ({"loss": "hinge"}, "give a function"),
        ({"max_test_drop": 5}, "share from 0 to 1"),
        ({"recheck": 1}, "True or False"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(given: dict[str, Any], words: str) -> None:
    with pytest.raises(DefuseError, match=words):
        CorrectionSettings.of(given)


def test_every_setting_is_checked() -> None:
    assert {field.name for field in fields(CorrectionSettings)} == set(ALLOWED)
    settings = CorrectionSettings()
    CorrectionSettings.of({name: getattr(settings, name) for name in ALLOWED if getattr(settings, name) is not None})


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


def test_bounds_and_lambdas_do_not_train_anew() -> None:
    assert CorrectionSettings(weights=(1.0,), max_test_drop=0.5, aim=0.9).training == CorrectionSettings().training
    assert CorrectionSettings(batch=7).training != CorrectionSettings().training
