"""A run's results as plain values. They travel as JSON on test reports; every report renders them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

from pydantic import TypeAdapter

from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.discover.results import DiscoveryResult
from pytest_defuse.explain.results import ExplanationResult
from pytest_defuse.gate.results import OverallResult, ScenarioResult, TestSetResult

Judged = ScenarioResult | TestSetResult | OverallResult
Result = Judged | DiscoveryResult | CorrectionResult | ExplanationResult
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (ScenarioResult, TestSetResult, OverallResult, DiscoveryResult, CorrectionResult, ExplanationResult)
}


@dataclass(frozen=True)
class Results:
    """All results of a run, each once, in the order in which they came.

    Attributes:
        failed: ids of the tests of a subject that failed, whatever they tested.
        notices: sentences about the run as a whole, such as scenarios that no test touches.
        arguments: what must stand behind ``pytest`` to measure the same again.
    """

    scenarios: list[ScenarioResult] = field(default_factory=list)
    test_sets: list[TestSetResult] = field(default_factory=list)
    discoveries: list[DiscoveryResult] = field(default_factory=list)
    corrections: list[CorrectionResult] = field(default_factory=list)
    explanations: list[ExplanationResult] = field(default_factory=list)
    overall: list[OverallResult] = field(default_factory=list)
    failed: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    @staticmethod
    def of(
        items: Iterable[dict[str, Any]],
        failed: Sequence[str] = (),
        notices: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> "Results":
        """Results from their JSON values."""
        results = Results(failed=tuple(failed), notices=tuple(notices), arguments=tuple(arguments))
        rows: dict[str, list[Any]] = {
            "ScenarioResult": results.scenarios,
            "TestSetResult": results.test_sets,
            "OverallResult": results.overall,
            "DiscoveryResult": results.discoveries,
            "CorrectionResult": results.corrections,
            "ExplanationResult": results.explanations,
        }
        for item in items:
            result = decode(item)
            if result not in rows[type(result).__name__]:
                rows[type(result).__name__].append(result)
        return results

    @property
    def judged(self) -> list[Judged]:
        """What was held against bounds: scenarios, all of them together, test sets."""
        return [*self.scenarios, *self.overall, *self.test_sets]

    @property
    def sets(self) -> list[ScenarioResult | TestSetResult]:
        """What has pictures of its own: scenarios and test sets."""
        return [*self.scenarios, *self.test_sets]

    def __iter__(self) -> Iterator[Result]:
        return chain(self.judged, self.corrections, self.discoveries, self.explanations)

    def __bool__(self) -> bool:
        return bool(self.failed) or any(True for _ in self)


def properties(result: Result) -> list[tuple[str, str]]:
    """What JUnit shows of a result, as names and values."""
    if not isinstance(result, Judged):
        return []
    low, high = result.accuracy.interval
    rows = [("defuse_accuracy", f"{result.correct}/{result.total}"), ("defuse_interval", f"{low:.4f} to {high:.4f}")]
    if isinstance(result, ScenarioResult):
        rows.append(("defuse_scenario", result.id))
    if result.comparison is not None:
        rows.append(("defuse_flips", str(len(result.comparison.lost))))
        rows.append(("defuse_mcnemar_p", f"{result.comparison.p:.4g}"))
    return [*rows, ("defuse_bound", f"{result.bound:.4f}"), ("defuse_outcome", result.outcome)]


def encode(result: Result) -> dict[str, Any]:
    """A result as a JSON value."""
    kind = type(result).__name__
    return {"kind": kind, **_adapter(kind).dump_python(result)}


def decode(item: dict[str, Any]) -> Any:
    """The result that :func:`encode` made a JSON value of."""
    values = dict(item)
    return _adapter(values.pop("kind")).validate_python(values)


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind])
