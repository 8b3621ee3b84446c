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
    """The uncorrected model, then one row a model that was tried."""
    rows = [Row(("before", "", "", *_shares(result.before)))]
    for trial in result.trials:
        name = f"{trial.weight:g}" + (f" ({trial.role})" if trial.role else "")
        mark: Literal["chosen"] | None = "chosen" if "chosen" in trial.role else None
        rows.append(Row((name, str(trial.epochs), f"{trial.alpha:g}", *_shares(trial)), mark))
    numbers = _numbers("epochs", "alpha", "validation", "and shifted", "correction tiles: worst", "mean")
    columns = (*_text("lambda"), *numbers)
    return Table(columns, tuple(rows))


def failure_mode_table(modes: Sequence[FailureModeResult]) -> Table:
    """Failure modes of real images."""
    rows = (
        Row(
            (
                mode.group,
                mode.rule,
                percent(mode.error_rate),
                percent(mode.base_error_rate),
                percent(mode.error_coverage),
                str(mode.images),
            )
        )
        for mode in modes
    )
    numbers = _numbers("error rate", "base", "coverage", "images")
    return Table((*_text("group", "rule"), *numbers), tuple(rows))


def _text(*titles: str) -> list[Column]:
    return [Column(title, numeric=False) for title in titles]


def _numbers(*titles: str) -> list[Column]:
    return [Column(title, numeric=True) for title in titles]


def _shares(trial: TrialResult) -> tuple[str, ...]:
    shifted = "" if trial.health is None else percent(trial.health)
    return percent(trial.validation), shifted, percent(trial.worst_scenario), percent(trial.mean_scenario)
