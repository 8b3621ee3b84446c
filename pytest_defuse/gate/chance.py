"""A statement about all accepted scenarios together: how many may fail by chance. It changes no verdict."""

from collections.abc import Sequence

from pytest_defuse.gate.results import ScenarioResult


def chance_sentence(scenarios: Sequence[ScenarioResult]) -> str:
    """How many scenarios with a confidence in their bounds fail, and how many would by chance; empty without any.

    Each scenario is tested on its own images, so of many models exactly at their bounds some fail. A two-sided test at
    confidence c fails such a model with probability (1 - c) / 2 per bound; their sum is an upper limit of the expected
    number of failures, because a model that is better than its bounds fails less often.
    """
    tested = [scenario for scenario in scenarios if any(check.p is not None for check in scenario.checks)]
    if not tested:
        return ""
    failed = sum(scenario.outcome == "FAIL" for scenario in tested)
    expected = sum(
        (1 - check.confidence) / 2 for scenario in tested for check in scenario.checks if check.p is not None
    )
    return (
        f"{failed} of {len(tested)} scenarios tested with a confidence fail; at most {expected:.1f} expected by chance "
        "if the model is exactly at every bound"
    )
