"""A subject's run: every number can be calculated again from what it saves."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from pytest_defuse.gate.baseline import Baseline, save_baseline
from pytest_defuse.gate.gate import GatedAccuracy
from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.plugin.correcting import Correcting
from pytest_defuse.plugin.options import Options
from pytest_defuse.plugin.run import SubjectRun
from pytest_defuse.report.results import Results, decode, encode
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.statistics.accuracy import wilson_interval
from pytest_defuse.statistics.significance import (
    mcnemar,
    paired_interval,
    paired_score,
    score,
    two_sided_p,
)
from pytest_defuse.subject.subject import Subject
from tests.scenarios.planting import plant, random_tiles

CLASSES = [*"0123456789"]
BOUNDS = Bounds(min_accuracy=0.08, max_drop=0.05, max_relative_drop=0.9, max_flips=3, confidence=0.8)


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def options(options: Options) -> Options:
    """Options that compare with a baseline, and save it."""
    baseline = options.store.parent / "baseline.json"
    return options._replace(baseline=baseline, save_baseline=baseline, first_run=True)


@pytest.fixture
def scenarios(options: Options) -> list[Scenario]:
    store = Store(options.store / "digits")
    tiles = [random_tiles(100, seed=seed) for seed in (1, 2, 3)]
    return [plant(store, random_tiles(4), part, status="accepted", label=str(n)) for n, part in enumerate(tiles)]


@pytest.fixture
def run(options: Options, scenarios: list[Scenario]) -> Callable[[int], SubjectRun]:
    def begin(seed: int) -> SubjectRun:
        pairs = [(tile, index % 10) for index, tile in enumerate(random_tiles(200, seed=9))]
        subject = Subject("digits", linear(seed), CLASSES, pairs, pairs)
        return SubjectRun(subject, options, [(scenario, BOUNDS) for scenario in scenarios], Progress())

    return begin


def saved(run: SubjectRun, options: Options) -> list[ScenarioResult]:
    """The run's results through JSON, its baseline written."""
    results = [encode(run.gate(scenario, bounds)) for scenario, bounds in run.requests]
    results.append(encode(run.gate_test(BOUNDS)))
    run_results = Results.of([*results, *map(encode, run.models)])
    assert options.save_baseline is not None
    save_baseline(
        options.save_baseline, Baseline.of_run(run_results.models, run_results.scenarios, run_results.test_sets)
    )
    return [decode(item) for item in json.loads(json.dumps(results))]


def test_every_number_can_be_calculated_from_what_is_saved(run: Callable[[int], SubjectRun], options: Options) -> None:
    saved(run(0), options)
    *results, test_set = saved(run(1), options)
    for result in [*results, test_set]:
        predictions, comparison = result.predictions, result.comparison
        assert comparison is not None
        rows = list(enumerate(zip(predictions.labels, predictions.baseline, predictions.predicted, strict=True)))
        lost = [index for index, (label, before, now) in rows if before == label != now]
        gained = [index for index, (label, before, now) in rows if now == label != before]
        assert (comparison.lost, comparison.gained) == (lost, gained)
        assert comparison.p == mcnemar(len(lost), len(gained))
        assert result.correct == sum(label == now for _, (label, _, now) in rows)
        level, n = result.confidence, result.total
        accuracy, drop, relative, flips = result.checks
        assert accuracy.measured == result.correct / n
        assert accuracy.interval == wilson_interval(result.correct, n, level)
        assert accuracy.p == two_sided_p(score(result.correct, n, 0.08))
        for check, limit in ((drop, 0.05), (relative, 0.9 * comparison.correct / n)):
            assert check.limit == pytest.approx(limit)
            assert check.measured == (len(lost) - len(gained)) / n
            assert check.interval == pytest.approx(paired_interval(len(lost), len(gained), n, level))
            p = two_sided_p(paired_score(len(lost), len(gained), n, limit))
            assert check.p == (None if "the observed value decides" in check.reason else pytest.approx(p))
        assert flips.measured == len(lost)
        assert flips.interval == pytest.approx([n * end for end in wilson_interval(len(lost), n, level)])
        undecidable = "the observed value decides" in flips.reason
        assert flips.p == (None if undecidable else two_sided_p(score(len(lost), n, 3 / n)))
        for check in result.checks:
            met = check.measured >= check.limit if check.bound == "min_accuracy" else check.measured <= check.limit
            decided = check.p is None or check.p <= 1 - 0.8
            assert check.outcome == (("PASS" if met else "FAIL") if decided else "INCONCLUSIVE")


def test_the_same_model_is_named_as_the_same(run: Callable[[int], SubjectRun], options: Options) -> None:
    first = saved(run(0), options)
    again = saved(run(0), options)
    assert all(result.comparison is None for result in first)
    assert all(result.predictions.same_model and not result.comparison.lost for result in again)
    accuracy = GatedAccuracy.of(run(0).gate_test(BOUNDS))
    assert "; the baseline is from the same model; most frequent errors: " in accuracy.sentence


def test_another_forward_with_the_same_weights_is_another_model(
    run: Callable[[int], SubjectRun], options: Options
) -> None:
    saved(run(0), options)
    other = run(0)
    other.subject.model.register_forward_hook(lambda module, inputs, logits: -logits)
    sentences: list[str] = []
    other.progress.say = sentences.append
    assert not any(result.predictions.same_model for result in saved(other, options))
    assert sentences == [
        f"{options.baseline} counts as a baseline from another model: this one has the same weights, but other logits "
        "for the same images"
    ]


def test_flipped_test_images_come_as_a_sheet(run: Callable[[int], SubjectRun], options: Options) -> None:
    saved(run(0), options)
    *_, test_set = saved(run(1), options)
    assert test_set.comparison.lost
    assert test_set.flip_sheet.startswith("iVBORw0KGgo")  # a PNG's signature in base64


def test_bounds_that_a_test_adds_while_it_runs_are_evaluated_alone(
    run: Callable[[int], SubjectRun], scenarios: list[Scenario]
) -> None:
    result = run(0).gate(scenarios[0], BOUNDS.replace(min_accuracy=0.0))
    assert (result.checks[0].limit, result.checks[0].outcome) == (0, "PASS")


def test_all_scenarios_together(run: Callable[[int], SubjectRun], scenarios: list[Scenario]) -> None:
    subject_run = run(0)
    together = subject_run.gate_all(Bounds(min_accuracy=0.5, per_class=True))
    parts = [subject_run.gate(scenario, BOUNDS) for scenario in sorted(scenarios, key=lambda s: s.id)]
    assert together.scenarios == tuple(part.id for part in parts)
    assert together.correct == sum(part.correct for part in parts)
    assert together.predictions.predicted == tuple(name for part in parts for name in part.predictions.predicted)
    assert {check.group for check in together.checks} == {"", "0", "1", "2"}
    with pytest.raises(AssertionError, match=r"all scenarios of digits: accuracy .* is below the bound 50\.0%"):
        GatedAccuracy.of(together).check()
    only = subject_run.gate_all(Bounds(only=("1",)))
    assert only.correct == next(part.correct for part in parts if part.label == "1")
    with pytest.raises(DefuseError, match=r"defuse\(only=...\) names '9', which is neither"):
        subject_run.gate_all(Bounds(only=("9",)))


def test_before_a_correction_is_the_original_model(run: Callable[[int], SubjectRun], scenarios: list[Scenario]) -> None:
    original, corrected = run(0), run(1)
    correcting = run(0)
    correcting.options = correcting.options._replace(correct=True)
    correcting.started = cast(Correcting, SimpleNamespace(model=corrected.original))
    bounds = Bounds(min_accuracy=0.0)
    pairs = [(r.gate_test(bounds), r.gate(scenarios[0], bounds), r.gate_all(bounds)) for r in (original, corrected)]
    verdicts = correcting.gate_test(bounds), correcting.gate(scenarios[0], bounds), correcting.gate_all(bounds)
    for verdict, before, after in zip(verdicts, *pairs, strict=True):
        assert before.correct != after.correct
        assert (verdict.correct_before, verdict.correct) == (before.correct, after.correct)
