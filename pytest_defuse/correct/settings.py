"""Settings of a correction."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.settings import Count, NonNegative, Positive, Settings, Share, setting

PAPER_LAMBDAS = (*(10.0**power for power in range(-10, 0)), 1.0, 2.0, 5.0, 10.0, 20.0, 100.0, 1000.0)
"""The papers' values of lambda (Defuse, appendix B.2)."""

TRAINING = (
    *("epochs", "batch", "scenario_batch", "at_once", "optimizer", "schedule", "augment", "mixup", "frozen"),
    *("batch_norm", "distill", "loss", "train_step"),
)
"""Settings that decide how a trial is trained; the others decide which trials are run and what is chosen."""

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float], Optimizer]] = {
    "adam": lambda parameters, rate: Adam(parameters, lr=rate),
    "adamw": lambda parameters, rate: AdamW(parameters, lr=rate),
    "sgd": lambda parameters, rate: SGD(parameters, lr=rate, momentum=0.9),
}
"""Optimizers by name, with PyTorch's defaults; momentum 0.9 is convention."""


class CorrectionSettings(Settings):
    """Settings of a correction; ``@pytest.mark.defuse_correct`` accepts these names.

    The objective is F = L(D) + lambda * CE(D_f) (Defuse, equation 5), starting from the model's current weights.
    ``search="grid"`` replaces some defaults by the papers' values for MNIST.
    """

    marker: ClassVar = "defuse_correct"
    presets: ClassVar = {
        ("search", "grid"): {
            "lambdas": PAPER_LAMBDAS,
            "rates": (1e-3,),
            "batch": 256,
            "scenario_batch": 256,
            "schedule": "constant",
            "augment": "none",
            "mixup": 0.0,
            "batch_norm": "batch",
        }
    }
    renamed: ClassVar = {"weights": "lambdas"}

    search: Literal["halving", "grid"] = setting(
        "halving",
        "`halving`: successive halving over `lambdas` and `rates`, then interpolation between the old weights and the "
        "winner's. `grid`: as in the papers, every lambda for all epochs, and the best epoch by validation accuracy.",
        "`benchmarks/correction.py`: a fifth of the grid's training, and higher accuracy (README)",
    )
    lambdas: tuple[NonNegative, ...] = setting(
        (0.03, 0.1, 0.3, 1.0),
        "Values of lambda, from mild to strong. The control, lambda = 0, is always trained too.",
        "our choice; `grid`: Defuse, appendix B.2",
        strict=False,
    )
    rates: tuple[Positive, ...] = setting(
        (3e-4, 1e-3),
        "Learning rates; `grid` uses the first.",
        "our choice; `grid`: Defuse, appendix B.2",
        strict=False,
        min_length=1,
    )
    epochs: Count = setting(3, "Passes over the training data of a trial that is never dropped.", "Defuse, section 4.1")
    batch: Count = setting(128, "Training images in one step.", "our choice; `grid`: Defuse, appendix B.2")
    scenario_batch: Count = setting(64, "Scenario images in one step.", "our choice; `grid`: Defuse, appendix B.2")
    at_once: Count = setting(
        512,
        "Maximum number of images in one forward and backward pass; the gradients of several passes are accumulated.",
    )
    optimizer: Literal["adam", "adamw", "sgd"] | Callable[[Iterable[Tensor], float], Optimizer] = setting(
        "adam", "The optimizer, by name or as a function of (parameters, learning rate).", "Defuse, appendix B.2"
    )
    schedule: Literal["cosine", "constant"] = setting(
        "cosine",
        "Whether the learning rate stays constant or falls to 0 along a cosine.",
        "Loshchilov and Hutter 2017; `grid`: Defuse, appendix B.2",
    )
    augment: Literal["mild", "none"] | Callable[[Tensor], Tensor] = setting(
        "mild",
        "Augmentation of training and scenario images alike. `mild`: half of them are shifted, rotated, blurred, "
        "reduced in contrast and made noisy, a little. Or a function of float images N x C x H x W in [0, 1].",
        "`benchmarks/correction.py`: altering all images costs accuracy on plain ones",
    )
    mixup: Share = setting(
        0.5,
        "Share of the scenario images that are mixed with a training image (pixels and labels).",
        "our choice of the share; mixup: Zhang et al. 2018",
    )
    frozen: tuple[str, ...] = setting(
        (),
        "Patterns of parameter names (`features.*`) that are not trained. Modules without a trainable parameter run in "
        "evaluation mode, so their batch statistics stay too.",
        "Defuse finetunes all parameters",
        strict=False,
    )
    batch_norm: Literal["fixed", "batch"] = setting(
        "fixed",
        "`fixed`: batch normalisation uses its running statistics, unchanged. `batch`: it uses each batch's, as in "
        "ordinary training.",
        "our choice; `grid`: PyTorch's training mode",
    )
    distill: NonNegative = setting(
        0.0,
        "Weight of the KL divergence from the old model to the new one, on the training images that the old model "
        "classifies correctly.",
        "not part of Defuse",
    )
    loss: Callable[[Tensor, Tensor], Tensor] | None = setting(
        None, "L, a function of (logits, labels); default: cross-entropy.", "Defuse, equation 5"
    )
    train_step: Callable[[nn.Module, int], Tensor] | None = setting(
        None,
        "Replaces L(D): a function of (model, step) that samples and augments a training batch and returns its loss. "
        "It resumes exactly if it depends only on `step` and torch's random numbers.",
        "not part of Defuse",
    )
    alphas: tuple[Annotated[float, Field(gt=0, le=1)], ...] = setting(
        (0.5, 0.7, 0.85, 1.0),
        "Interpolations that are tried, from the old weights (0) to the winner's (1).",
        "our choice of the values; WiSE-FT: Wortsman et al. 2022",
        strict=False,
        min_length=1,
    )
    aim: Share = setting(
        0.995, "Accuracy on correction tiles at which a scenario is fixed; a bound above it replaces it."
    )
    target: Share = setting(
        0.9,
        "Accuracy on held-out tiles that a scenario without `min_accuracy`, `max_error_rate` and `max_increase` must "
        "reach. A scenario with one of these must reach it instead.",
        "our choice, the bound of the examples",
    )
    max_test_drop: Share = setting(0.005, "Maximum drop of test accuracy.")
    max_class_drop: Share = setting(
        0.03,
        "Maximum drop of the accuracy on one class. A larger drop passes only if it may be chance for this class, "
        "and fails if it is significant over all classes. Drops between are INCONCLUSIVE, and write no checkpoint.",
    )
    max_negative_flips: Share = setting(
        0.02, "Maximum share of test images that were classified correctly and no longer are."
    )
    max_shift_drop: Share = setting(
        0.01, "Maximum drop of accuracy on a shift set, or on a shifted copy of the test set."
    )
    recheck: bool = setting(
        True,
        "Search an accepted corrected model for failures, briefly, if the generator of its scenarios is in the cache.",
    )

    @field_validator("lambdas")
    @classmethod
    def _above_zero(cls, lambdas: tuple[float, ...]) -> tuple[float, ...]:
        if not any(lambdas):
            raise ValueError("a list of numbers >= 0, at least one > 0")
        return tuple(sorted({lambda_ for lambda_ in lambdas if lambda_}))

    @model_validator(mode="after")
    def _one_loss_on_training_images(self) -> Self:
        if self.distill and self.train_step:
            raise DefuseError(
                "defuse_correct(distill=..., train_step=...): a train_step samples its own images, so add distillation "
                "to its loss, or remove one of the two settings."
            )
        return self

    @property
    def training(self) -> dict[str, Any]:
        """The settings that decide how a trial is trained: part of the key of its states on disk."""
        return {name: getattr(self, name) for name in TRAINING}

    def make_optimizer(self, parameters: Sequence[Tensor], rate: float) -> Optimizer:
        """The optimizer of one trial."""
        make = OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer
        return make(parameters, rate)

    def rate_at(self, rate: float, done: float) -> float:
        """The learning rate after a share ``done`` of a trial's steps, in [0, 1)."""
        return rate * (1 + math.cos(math.pi * done)) / 2 if self.schedule == "cosine" else rate
