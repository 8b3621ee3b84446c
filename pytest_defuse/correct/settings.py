"""What a correction can be told."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pytest_defuse.runtime.errors import DefuseError

PAPER_WEIGHTS = (*(10.0**power for power in range(-10, 0)), 1.0, 2.0, 5.0, 10.0, 20.0, 100.0, 1000.0)
"""The lambdas of the papers (Defuse, appendix A)."""

TRAINING = (
    *("epochs", "batch", "scenario_batch", "at_once", "optimizer", "schedule", "augment", "mixup", "frozen"),
    *("batch_norm", "distill", "loss", "train_step"),
)

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float], Optimizer]] = {
    "adam": lambda parameters, rate: Adam(parameters, lr=rate),
    "adamw": lambda parameters, rate: AdamW(parameters, lr=rate),
    "sgd": lambda parameters, rate: SGD(parameters, lr=rate, momentum=0.9),
}


@dataclass(frozen=True)
class CorrectionSettings:
    """Everything that a correction can be told; ``@pytest.mark.defuse_correct`` takes these names.

    The objective is F = L(D) + lambda * CE(D_f) (Defuse, equation 5), from the model's current weights.

    Attributes:
        search: ``halving`` runs successive halving over ``weights`` and ``rates`` and interpolates its winner;
            ``grid`` is the papers' way: every lambda for all epochs, the best epoch by validation accuracy, and
            the papers' value of every setting that is not given.
        weights: the lambdas; default: four from mild to strong, in a grid the papers' seventeen. The control,
            lambda = 0, is always trained beside them.
        rates: learning rates; a grid takes the first.
        epochs: passes over the training data of a trial that goes the whole way.
        batch, scenario_batch: training and scenario images in one step.
        at_once: most images in one forward and backward pass; gradients add up to the batch's.
        optimizer: ``adam``, ``adamw``, ``sgd``, or a function of (parameters, rate).
        schedule: the rate stays ``constant`` or falls to 0 along a ``cosine``.
        augment: ``mild`` (half of the images moved, turned, blurred, paled, noised a little), ``none``, or a
            function on float images N x C x H x W in [0, 1]. Scenario and training images get the same.
        mixup: the share of scenario images that are mixed with a training image, pixels and labels alike.
        frozen: patterns of parameter names (``features.*``) that stay as they are. Modules without a trainable
            parameter run as in evaluation, so their batch statistics stay too.
        batch_norm: ``fixed`` keeps running statistics as they are; ``batch`` trains on the batch's.
        distill: weight of KL(old model || new model) on training images that the old model has right.
        loss: L, a function of (logits, labels); default: cross-entropy.
        train_step: instead of L(D): a function of (model, step) that returns the loss of a training batch of its
            own choice; augmentation and sampler are the user's then. A step that depends on ``step`` and torch's
            random numbers alone resumes exactly.
        alphas: interpolations between the old weights (0) and the winner's (1) that are tried.
        aim: accuracy on correction tiles that counts as mended, where a bound asks for less.
        max_test_drop: the most that test accuracy may fall, in [0, 1].
        max_class_drop: the most that the accuracy on one class may fall; counted where it is surely more than
            chance, all classes being compared.
        max_negative_flips: the most test images, as a share, that were right and are wrong.
        max_shift_drop: the most that accuracy on a shift set or a shifted copy of the test set may fall.
        recheck: search the corrected model for failures, briefly, once it is accepted, where the generator that found
            its scenarios is in the cache.
    """

    search: Literal["halving", "grid"] = "halving"
    weights: tuple[float, ...] | None = None
    rates: tuple[float, ...] = (3e-4, 1e-3)
    epochs: int = 3
    batch: int = 128
    scenario_batch: int = 64
    at_once: int = 512
    optimizer: str | Callable[[Iterable[Tensor], float], Optimizer] = "adam"
    schedule: Literal["cosine", "constant"] = "cosine"
    augment: str | Callable[[Tensor], Tensor] = "mild"
    mixup: float = 0.5
    frozen: tuple[str, ...] = ()
    batch_norm: Literal["fixed", "batch"] = "fixed"
    distill: float = 0.0
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    train_step: Callable[[nn.Module, int], Tensor] | None = None
    alphas: tuple[float, ...] = (0.5, 0.7, 0.85, 1.0)
    aim: float = 0.995
    max_test_drop: float = 0.005
    max_class_drop: float = 0.03
    max_negative_flips: float = 0.02
    max_shift_drop: float = 0.01
    recheck: bool = True

    @staticmethod
    def of(given: Mapping[str, Any]) -> "CorrectionSettings":
        """The defaults, changed where ``given`` says so.

        Raises:
            DefuseError: a name that is no setting, or a value that cannot be.
        """
        known = [field.name for field in fields(CorrectionSettings)]
        values = {}
        for name, value in given.items():
            if name not in known:
                raise DefuseError(f"defuse_correct has no setting {name!r}: it has {', '.join(known)}.")
            if isinstance(value, list):
                value = tuple(value)
            if not ALLOWED[name].holds(value):
                raise DefuseError(f"defuse_correct({name}={value!r}): give {ALLOWED[name].words}.")
            values[name] = value
        return replace(papers_settings() if values.get("search") == "grid" else CorrectionSettings(), **values)

    @property
    def lambdas(self) -> tuple[float, ...]:
        """The lambdas above 0 that are tried, the smallest first."""
        given = self.weights or (PAPER_WEIGHTS if self.search == "grid" else (0.03, 0.1, 0.3, 1.0))
        return tuple(sorted({weight for weight in given if weight > 0}))

    @property
    def training(self) -> dict[str, Any]:
        """The settings that decide how a trial is trained: part of the key of its states on disk."""
        return {name: getattr(self, name) for name in TRAINING}

    def make_optimizer(self, parameters: Sequence[Tensor], rate: float) -> Optimizer:
        """The optimizer of one trial."""
        make = OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer
        return make(parameters, rate)

    def freezes(self, name: str) -> bool:
        """Whether a parameter of this name stays as it is."""
        return any(fnmatchcase(name, pattern) for pattern in self.frozen)

    def rate_at(self, rate: float, done: float) -> float:
        """The learning rate when a share ``done`` of a trial's steps, in [0, 1), is taken."""
        return rate * (1 + math.cos(math.pi * done)) / 2 if self.schedule == "cosine" else rate


def papers_settings() -> CorrectionSettings:
    """The literal mode: the grid of seventeen lambdas, and all else as the papers have it on MNIST."""
    return CorrectionSettings(
        search="grid",
        rates=(1e-3,),
        epochs=3,
        batch=256,
        scenario_batch=256,
        schedule="constant",
        augment="none",
        mixup=0.0,
        batch_norm="batch",
    )


@dataclass(frozen=True)
class _Allowed:
    """What a setting may be, as a test and in words."""

    holds: Callable[[Any], bool]
    words: str


def _number(value: Any, least: float, most: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and least <= value <= most


def _numbers(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and bool(value) and all(_number(v, least, most) for v in value)


def _one_of(*names: str, function: bool = False) -> _Allowed:
    words = " or ".join(map(repr, names)) + (", or a function" if function else "")
    return _Allowed(lambda value: (isinstance(value, str) and value in names) or (function and callable(value)), words)


_COUNT = _Allowed(lambda value: isinstance(value, int) and _number(value, 1, math.inf), "a whole number of 1 or more")
_SHARE = _Allowed(lambda value: _number(value, 0, 1), "a share from 0 to 1")
_FUNCTION = _Allowed(lambda value: value is None or callable(value), "a function")
_PATTERNS = _Allowed(
    lambda value: isinstance(value, tuple) and all(isinstance(v, str) for v in value),
    'a list of patterns of parameter names, such as ["features.*"]',
)

ALLOWED = {
    "search": _one_of("halving", "grid"),
    "weights": _Allowed(
        lambda value: _numbers(0, 1e12)(value) and max(value) > 0, "a list of lambdas, at least one above 0"
    ),
    "rates": _Allowed(_numbers(1e-12, 1e3), "a list of learning rates above 0"),
    "optimizer": _one_of(*OPTIMIZERS, function=True),
    "schedule": _one_of("cosine", "constant"),
    "augment": _one_of("mild", "none", function=True),
    "frozen": _PATTERNS,
    "batch_norm": _one_of("fixed", "batch"),
    "distill": _Allowed(lambda value: _number(value, 0, 1e12), "a number of 0 or more"),
    "alphas": _Allowed(_numbers(1e-12, 1), "a list of shares above 0 and up to 1"),
    "recheck": _Allowed(lambda value: isinstance(value, bool), "True or False"),
    **dict.fromkeys(("epochs", "batch", "scenario_batch", "at_once"), _COUNT),
    **dict.fromkeys(
        ("aim", "mixup", "max_test_drop", "max_class_drop", "max_negative_flips", "max_shift_drop"), _SHARE
    ),
    **dict.fromkeys(("loss", "train_step"), _FUNCTION),
}
