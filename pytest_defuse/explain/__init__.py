"""Visual features of real images that are associated with a model's failures (Barlow)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_defuse.explain.explanation import Explanation, describe_region, explain, matching_images
    from pytest_defuse.explain.failure_modes import FailureMode, FailureModes
    from pytest_defuse.explain.robust_training import RobustSettings, train_robust
    from pytest_defuse.explain.settings import ExplainSettings

__all__ = [
    "ExplainSettings",
    "Explanation",
    "FailureMode",
    "FailureModes",
    "RobustSettings",
    "describe_region",
    "explain",
    "matching_images",
    "train_robust",
]


def __getattr__(name: str) -> Any:
    """Load the engine when a name is first used: reports read the results in this package without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = (import_module(f"{__name__}.{part}") for part in ("explanation", "failure_modes", "robust_training"))
    return next(vars(module)[name] for module in modules if name in vars(module))
