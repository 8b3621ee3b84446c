"""Visual features of real images that go with a model's failures (Barlow)."""

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
