"""Results as tables of text, the same in every rendering."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_defuse.correct.results import CorrectionResult, TrialResult
from pytest_defuse.discover.results import DiscoveryResult
from pytest_defuse.explain.results import FailureModeResult
from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.report.flips import Flip
from pytest_defuse.report.results import Judged, Results
from pytest_defuse.report.words import (
    VERDICTS,
    bound_of,
    figures,
    fraction,
    interval_name,
    name_of,
    p_value,
    percent,
    share,
    span,
    verdict,
)
from pytest_defuse.scenarios.bounds import Outcome


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
        judged = (bound_of(scenario), verdict(scenario))
        rows.append(Row((scenario.id, scenario.label, *measured, *judged), scenario.outcome))
    numbers = _numbers(
        *(("before", "after") if corrected else ("accuracy",)),
        interval_name(*confidences) if len(confidences) == 1 else "interval",
        "bound",
    )
    return Table((*_text("scenario", "label"), *numbers, *_text("verdict")), tuple(rows))


def check_table(*judged: Judged) -> Table:
    """Every bound, one by one, that was held against these sets of images; more than one are named."""
    tested = any(check.p is not None for one in judged for check in one.checks)
    rows = []
    for one in judged:
        for check in one.checks:
            measured, interval, limit = figures(check)
            cells = (
                *([name_of(one)] if len(judged) > 1 else []),
                check.bound,
                check.group or "all",
                f"{check.images:,}",
                measured,
                interval,
                limit,
                *([p_value(check.adjusted_p)] if tested else []),
                VERDICTS[check.outcome],
            )
            rows.append(Row(cells, check.outcome))
    texts = _text(*(["of"] if len(judged) > 1 else []), "bound", "class")
    numbers = _numbers("images", "measured", "interval", "limit", *(["adjusted p"] if tested else []))
    return Table((*texts, *numbers, *_text("verdict")), tuple(rows))


def comparison_table(results: Results) -> Table | None:
    """This model against the baseline, on each set of images where an answer changed; None where none did."""
    rows = tuple(
        Row(
            (
                name_of(judged),
                f"{len(c.lost):,}",
                f"{len(c.gained):,}",
                f"{c.images:,}",
                p_value(c.p),
                p_value(c.adjusted_p),
            )
        )
        for judged in results.judged
        if (c := judged.comparison) is not None and (c.lost or c.gained)
    )
    numbers = _numbers("flips to wrong", "to right", "images", "McNemar's p", "adjusted")
    return Table((*_text("against the baseline"), *numbers), rows) if rows else None


def flip_table(flips: Sequence[Flip]) -> Table:
    """Images that the baseline had right and this model has wrong."""
    rows = (Row((f.name, str(f.number), f.label, f.predicted, f.confidence)) for f in flips)
    return Table((*_text("images"), *_numbers("number"), *_text("label", "now"), *_numbers("confidence")), tuple(rows))


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


def _shares(trial: TrialResult) -> tuple[str, ...]:
    shifted = "" if trial.health is None else percent(trial.health)
    return percent(trial.validation), shifted, percent(trial.worst_scenario), percent(trial.mean_scenario)
