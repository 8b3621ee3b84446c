"""What JUnit XML shows of a result: properties of the test case."""

from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.report.results import AnyVerdict, Result
from pytest_defuse.runtime.escaping import visible


def properties(result: Result) -> list[tuple[str, str]]:
    """Names and values; none for a result that is not a verdict, and no outcome without a bound."""
    if not isinstance(result, AnyVerdict):
        return []
    low, high = result.accuracy.interval
    rows = [("defuse_accuracy", f"{result.correct}/{result.total}"), ("defuse_interval", f"{low:.4f} to {high:.4f}")]
    if isinstance(result, ScenarioResult):
        rows.append(("defuse_scenario", visible(result.id)))
    if comparison := result.comparison:
        rows += [("defuse_flips", str(len(comparison.lost))), ("defuse_mcnemar_p", f"{comparison.p:.4g}")]
    if result.checks:
        rows += [("defuse_bound", f"{result.bound:.4f}"), ("defuse_outcome", result.outcome)]
    return rows
