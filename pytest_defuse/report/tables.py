"""Results as tables of text, the same in every rendering."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_defuse.gate.bounds import Outcome
from pytest_defuse.report.results import (
    CorrectionResult,
    DiscoveryResult,
    FailureModeResult,
    ScenarioResult,
    TrialResult,
)
from pytest_defuse.report.words import VERDICTS, fraction, interval_name, percent, share, span


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers are set to the right and never broken."""

    title: str
    numeric: bool


@dataclass(frozen=True)
class Row:
    """A row's cells, and what is special about it: a verdict, or that it was chosen."""

    cells: tuple[str, ...]
    mark: Outcome | Literal["chosen"] | None = None


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def scenario_table(scenarios: Sequence[ScenarioResult]) -> Table:
    """Scenarios against their bounds; before and after where a correction ran."""
    corrected = any(scenario.before is not None for scenario in scenarios)
    confidences = {scenario.confidence for scenario in scenarios}
    rows = []
    for scenario in scenarios:
        before = [share(scenario.before, scenario.total)] if corrected else []
        interval = span(scenario.accuracy.interval)
        if len(confidences) > 1:
            interval += f" (at {scenario.confidence * 100:g}%)"
        measured = (*before, fraction(scenario.correct, scenario.total), interval)
        verdict = (percent(scenario.bound), VERDICTS[scenario.outcome])
        rows.append(Row((scenario.id, scenario.label, *measured, *verdict), scenario.outcome))
    numbers = _numbers(
        *(("before", "after") if corrected else ("accuracy",)),
        interval_name(*confidences) if len(confidences) == 1 else "interval",
        "bound",
    )
    return Table((*_text("scenario", "label"), *numbers, *_text("verdict")), tuple(rows))


def candidate_table(result: DiscoveryResult) -> Table:
    """New candidates: the class they may show, what the model says, and how often it fails there."""
    rows = (
        Row(
            (
                candidate.id,
                candidate.proposed_label,
                max(candidate.predicted, key=lambda name: candidate.predicted[name]),
                fraction(candidate.failed, candidate.drawn),
            )
        )
        for candidate in result.new
    )
    return Table((*_text("candidate", "proposed", "model says"), *_numbers("failure rate")), tuple(rows))


def trial_table(result: CorrectionResult) -> Table:
    """The uncorrected model, then one row a lambda."""
    rows = [Row(("before", *_shares(result.before)))]
    for trial in result.trials:
        chosen = trial.weight == result.chosen
        notes = [*(["control"] if trial.weight == 0 else []), *(["chosen"] if chosen else [])]
        name = " ".join([f"{trial.weight:g}", *(f"({note})" for note in notes)])
        rows.append(Row((name, *_shares(trial)), "chosen" if chosen else None))
    columns = (*_text("lambda"), *_numbers("validation", "correction tiles: worst", "mean"))
    return Table(columns, tuple(rows))


def failure_mode_table(modes: Sequence[FailureModeResult]) -> Table:
    """Failure modes of real images; the increase is in percentage points."""
    rows = (
        Row(
            (
                mode.group,
                mode.rule,
                percent(mode.error_rate),
                span(mode.interval),
                f"{100 * (mode.error_rate - mode.base_error_rate):+.1f}",
                percent(mode.base_error_rate),
                percent(mode.error_coverage),
                str(mode.images),
            )
        )
        for mode in modes
    )
    numbers = _numbers("error rate", interval_name(0.95), "increase", "base", "coverage", "images")
    return Table((*_text("group", "rule"), *numbers), tuple(rows))


def _text(*titles: str) -> list[Column]:
    return [Column(title, numeric=False) for title in titles]


def _numbers(*titles: str) -> list[Column]:
    return [Column(title, numeric=True) for title in titles]


def _shares(trial: TrialResult) -> tuple[str, str, str]:
    return percent(trial.validation), percent(trial.worst_scenario), percent(trial.mean_scenario)
