"""All results of a run. They travel as JSON on test reports; every report renders them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from itertools import chain
from typing import Any, TypeVar, get_args, get_origin

from pydantic import TypeAdapter

from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.discover.results import DiscoveryResult
from pytest_defuse.explain.results import ExplanationResult
from pytest_defuse.gate.checks import WORST_FIRST
from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.gate.results import FLIPS_PER_SET, ModelResult, OverallResult, ScenarioResult, TestSetResult

AnyVerdict = ScenarioResult | TestSetResult | OverallResult
Result = AnyVerdict | ModelResult | DiscoveryResult | CorrectionResult | ExplanationResult
V = TypeVar("V", ScenarioResult, TestSetResult, OverallResult)


@dataclass(frozen=True)
class Flip:
    """An image that the baseline classifies correctly and this model does not.

    Attributes:
        name: of its set of images, a scenario's id or a test set.
        number: position in that set from 0: of a scenario's tile on its sheet, of a test image in the test set.
        label, predicted: class names.
        confidence: of the prediction, in words; empty if unknown.
    """

    name: str
    number: int
    label: str
    predicted: str
    confidence: str


@dataclass(frozen=True)
class Results:
    """All results of a run, without duplicates, in the order in which they arrived.

    Attributes:
        failed: ids of the subjects' tests that failed, for any reason.
        notices: sentences about the run as a whole, such as scenarios that no test covers.
        arguments: command line arguments of ``pytest`` that repeat the run.
        partial: why tests that were collected did not run; empty for a complete run.
        problems: why the run fails although no test does, in sentences, such as scenarios that were not judged.
    """

    scenarios: list[ScenarioResult] = field(default_factory=list)
    test_sets: list[TestSetResult] = field(default_factory=list)
    discoveries: list[DiscoveryResult] = field(default_factory=list)
    corrections: list[CorrectionResult] = field(default_factory=list)
    explanations: list[ExplanationResult] = field(default_factory=list)
    overall: list[OverallResult] = field(default_factory=list)
    models: list[ModelResult] = field(default_factory=list)
    failed: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    partial: str = ""
    problems: tuple[str, ...] = ()

    @staticmethod
    def of(
        items: Iterable[dict[str, Any]],
        failed: Sequence[str] = (),
        notices: Sequence[str] = (),
        arguments: Sequence[str] = (),
        partial: str = "",
        problems: Sequence[str] = (),
    ) -> "Results":
        """Results from their JSON values (:func:`encode`)."""
        results = Results(
            failed=tuple(failed),
            notices=tuple(notices),
            arguments=tuple(arguments),
            partial=partial,
            problems=tuple(problems),
        )
        for item in items:
            group, result = getattr(results, FIELDS[item["kind"]][0]), decode(item)
            if result not in group:
                group.append(result)
        return results.merged()

    def merged(self) -> "Results":
        """These results with one verdict per set of images, however many tests evaluate it (:func:`merge`)."""
        scenarios, overall, test_sets = merge(self.scenarios), merge(self.overall), merge(self.test_sets)
        return replace(self, scenarios=scenarios, overall=overall, test_sets=test_sets)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that a reader of any result should know: problems, that the run is partial, and the notices."""
        partial = [f"partial results, tests are missing: {self.partial}"] if self.partial else []
        return (*self.problems, *partial, *self.notices)

    @property
    def verdicts(self) -> list[AnyVerdict]:
        """Of scenarios, of all scenarios together, of test sets."""
        return [*self.scenarios, *self.overall, *self.test_sets]

    @property
    def sets(self) -> list[ScenarioResult | TestSetResult]:
        """The verdicts on separate sets of images: scenarios and test sets."""
        return [*self.scenarios, *self.test_sets]

    @property
    def flips(self) -> list[Flip]:
        """The flips of all scenarios and test sets, at most :data:`FLIPS_PER_SET` per set."""
        return [flip for verdict in self.sets for flip in flips_of(verdict)]

    def __iter__(self) -> Iterator[Result]:
        return chain(self.verdicts, self.corrections, self.discoveries, self.explanations)

    def __bool__(self) -> bool:
        return bool(self.failed or self.problems) or any(True for _ in self)


FIELDS = {
    kind.__name__: (field.name, kind)
    for field in fields(Results)
    if get_origin(field.type) is list
    for kind in get_args(field.type)
}
"""The field of :class:`Results` and the class of each kind of result."""


def merge(verdicts: Iterable[V]) -> list[V]:
    """One verdict per set of images, in order: the worst, with the checks of every test that evaluates the set."""
    groups: dict[tuple[Any, ...], list[V]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.subject, verdict.name, getattr(verdict, "scenarios", ())), []).append(verdict)
    worst = [min(group, key=lambda verdict: WORST_FIRST.index(verdict.outcome)) for group in groups.values()]
    return [
        replace(verdict, checks=tuple(dict.fromkeys(check for part in group for check in part.checks)))
        for verdict, group in zip(worst, groups.values(), strict=True)
    ]


def flips_of(verdict: ScenarioResult | TestSetResult) -> list[Flip]:
    """The first :data:`FLIPS_PER_SET` flips of one set of images."""
    predictions = verdict.predictions
    lost = verdict.comparison.lost[:FLIPS_PER_SET] if verdict.comparison else []
    numbers = verdict.tiles if isinstance(verdict, ScenarioResult) else range(verdict.total)
    confidences = confidences_of(predictions)
    return [
        Flip(verdict.name, numbers[index], predictions.labels[index], predictions.predicted[index], confidences[index])
        for index in lost
    ]


def confidences_of(predictions: LabelledPredictions) -> list[str]:
    """The confidence of each prediction in words, ``61%``; empty strings if unknown."""
    return [f"{confidence:.0%}" for confidence in predictions.confidences] or [""] * predictions.total


def encode(result: Result) -> dict[str, Any]:
    """A result as a JSON value."""
    return {"kind": type(result).__name__, **asdict(result)}


def decode(item: dict[str, Any]) -> Any:
    """The result of a value of :func:`encode`."""
    return _adapter(item["kind"]).validate_python(item)


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(FIELDS[kind][1])
