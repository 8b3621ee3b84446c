"""Results as tables of text; every rendering uses the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_defuse.correct.results import CorrectionResult, TrialResult
from pytest_defuse.discover.results import DiscoveryResult
from pytest_defuse.explain.results import FailureModeResult
from pytest_defuse.gate.checks import Outcome
from pytest_defuse.gate.results import ScenarioResult, Verdict
from pytest_defuse.report.flips import Flip
from pytest_defuse.report.results import Results
from pytest_defuse.report.words import (
    bound_of,
    figures,
    fraction,
    interval_name,
    outcome_text,
    p_value,
    percent,
    share,
    span,
)


@dataclass(frozen=True)
class Column:
    """A column's title; numbers are aligned to the right and not wrapped."""

    title: str
    numeric: bool


@dataclass(frozen=True)
class Row:
    """A row's cells, with a mark that renderings may highlight: an outcome, or the chosen trial."""

    cells: tuple[str, ...]
    mark: Outcome | Literal["chosen"] | None = None


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def scenario_table(scenarios: Sequence[ScenarioResult]) -> Table:
    """The verdicts on scenarios; with accuracy before and after if there was a correction."""
    corrected = any(scenario.correct_before is not None for scenario in scenarios)
    confidences = {scenario.confidence for scenario in scenarios}
    rows = []
    for scenario in scenarios:
        before = [share(scenario.correct_before, scenario.total)] if corrected else []
        interval = span(scenario.accuracy.interval)
        if len(confidences) > 1:
            interval += f" (at {scenario.confidence * 100:g}%)"
        accuracy = (*before, fraction(scenario.correct, scenario.total), interval)
        cells = (scenario.id, scenario.label, *accuracy, bound_of(scenario), outcome_text(scenario))
        rows.append(Row(cells, scenario.outcome))
    numbers = _numbers(
        *(("before", "after") if corrected else ("accuracy",)),
        interval_name(*confidences) if len(confidences) == 1 else "interval",
        "bound",
    )
    return Table((*_text("scenario", "label"), *numbers, *_text("verdict")), tuple(rows))


def check_table(*verdicts: Verdict) -> Table:
    """Every bound that was evaluated; of several sets of images each row names its own."""
    tested = any(check.p is not None for verdict in verdicts for check in verdict.checks)
    rows = []
    for verdict in verdicts:
        for check in verdict.checks:
            measured, interval, limit = figures(check)
            cells = (
                *([verdict.name] if len(verdicts) > 1 else []),
                check.bound,
                check.group or "all",
                f"{check.total:,}",
                measured,
                interval,
                limit,
                *([p_value(check.adjusted_p)] if tested else []),
                check.outcome,
            )
            rows.append(Row(cells, check.outcome))
    texts = _text(*(["of"] if len(verdicts) > 1 else []), "bound", "class")
    numbers = _numbers("images", "measured", "interval", "limit", *(["adjusted p"] if tested else []))
    return Table((*texts, *numbers, *_text("verdict")), tuple(rows))


def comparison_table(results: Results) -> Table | None:
    """The changes from the baseline on each set of images; None without changes."""
    rows = tuple(
        Row(
            (
                verdict.name,
                f"{len(c.lost):,}",
                f"{len(c.gained):,}",
                f"{c.total:,}",
                p_value(c.p),
                p_value(c.adjusted_p),
            )
        )
        for verdict in results.verdicts
        if (c := verdict.comparison) is not None and (c.lost or c.gained)
    )
    numbers = _numbers("flips to wrong", "to correct", "images", "McNemar's p", "adjusted")
    return Table((*_text("compared with the baseline"), *numbers), rows) if rows else None


def flip_table(flips: Sequence[Flip]) -> Table:
    """Images that the baseline classifies correctly and this model does not."""
    rows = (Row((f.name, str(f.number), f.label, f.predicted, f.confidence)) for f in flips)
    return Table((*_text("images"), *_numbers("number"), *_text("label", "now"), *_numbers("confidence")), tuple(rows))


def candidate_table(result: DiscoveryResult) -> Table:
    """New candidates: the proposed class, the class that the model predicts most, and the failure rate."""
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
    return Table((*_text("candidate", "proposed", "predicted"), *_numbers("failure rate")), tuple(rows))


def trial_table(result: CorrectionResult) -> Table:
    """The uncorrected model, then one row per trial."""
    rows = [Row(("before", "", "", *_shares(result.before)))]
    for trial in result.trials:
        name = f"{trial.lambda_:g}" + (f" ({trial.role})" if trial.role else "")
        mark: Literal["chosen"] | None = "chosen" if "chosen" in trial.role else None
        rows.append(Row((name, str(trial.epochs), f"{trial.alpha:g}", *_shares(trial)), mark))
    numbers = _numbers("epochs", "alpha", "validation", "and shifted", "correction tiles: worst", "mean")
    columns = (*_text("lambda"), *numbers)
    return Table(columns, tuple(rows))


def failure_mode_table(modes: Sequence[FailureModeResult]) -> Table:
    """Failure modes of real images; the increase over the base error rate is in percentage points."""
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
    shifted = "" if trial.mean_accuracy is None else percent(trial.mean_accuracy)
    return percent(trial.validation), shifted, percent(trial.worst_scenario), percent(trial.mean_scenario)
