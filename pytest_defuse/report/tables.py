"""Results as tables of text; every rendering uses the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Literal

from pytest_defuse.correct.results import CorrectionResult, TrialResult
from pytest_defuse.discover.results import DiscoveryResult
from pytest_defuse.explain.results import FailureModeResult
from pytest_defuse.gate.checks import Outcome
from pytest_defuse.gate.results import ScenarioResult, Verdict
from pytest_defuse.report.results import Flip, Results
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
from pytest_defuse.statistics.significance import benjamini_hochberg

Mark = Outcome | Literal["chosen"] | None
"""What renderings may highlight: an outcome, or the chosen trial."""
CLASSES_SHOWN = 5
"""Classes in the table of losses, those that lost most: as many rows as the other tables have."""


@dataclass(frozen=True)
class Column:
    """A column's title; numbers are aligned to the right and not wrapped."""

    title: str
    numeric: bool


@dataclass(frozen=True)
class Row:
    """A row's cells."""

    cells: tuple[str, ...]
    mark: Mark = None


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
        rows.append((scenario.id, scenario.label, *accuracy, bound_of(scenario), outcome_text(scenario)))
    interval = interval_name(*confidences) if len(confidences) == 1 else "interval"
    accuracies = (">before", ">after") if corrected else (">accuracy",)
    titles = ("scenario", "label", *accuracies, f">{interval}", ">bound", "verdict")
    return _table(titles, rows, [scenario.outcome for scenario in scenarios])


def check_table(*verdicts: Verdict) -> Table:
    """Every bound that was evaluated; of several sets of images each row names its own."""
    checks = [(verdict, check) for verdict in verdicts for check in verdict.checks]
    several, tested = len(verdicts) > 1, any(check.p is not None for _, check in checks)
    rows = []
    for verdict, check in checks:
        cells = (check.bound, check.group or "all", f"{check.total:,}", *figures(check))
        p = [p_value(check.p)] if tested else []
        rows.append((*([verdict.name] if several else []), *cells, *p, check.outcome))
    numbers = (">images", ">measured", ">interval", ">limit", *([">p"] if tested else []))
    titles = (*(["of"] if several else []), "bound", "class", *numbers, "verdict")
    return _table(titles, rows, [check.outcome for _, check in checks])


def comparison_table(results: Results) -> Table | None:
    """The changes from the baseline on each set of images, with p also adjusted over all sets; None without changes."""
    compared = [(verdict.name, verdict.comparison) for verdict in results.verdicts if verdict.comparison]
    adjusted = benjamini_hochberg([comparison.p for _, comparison in compared])
    rows = [
        (name, f"{len(c.lost):,}", f"{len(c.gained):,}", f"{c.total:,}", p_value(c.p), p_value(over_all))
        for (name, c), over_all in zip(compared, adjusted, strict=True)
        if c.lost or c.gained
    ]
    numbers = (">flips to wrong", ">to correct", ">images", ">McNemar's p", ">adjusted")
    return _table(("compared with the baseline", *numbers), rows) if rows else None


def flip_table(flips: Iterable[Flip]) -> Table:
    """Images that the baseline classifies correctly and this model does not."""
    rows = ((f.name, str(f.number), f.label, f.predicted, f.confidence) for f in flips)
    return _table(("images", ">number", "label", "now", ">confidence"), rows)


def candidate_table(result: DiscoveryResult) -> Table:
    """New candidates: the proposed class, the class that the model predicts most, and the failure rate."""
    rows = (
        (c.id, c.proposed_label, max(c.predicted, key=c.predicted.__getitem__), fraction(c.failed, c.drawn))
        for c in result.new
    )
    return _table(("candidate", "proposed", "predicted", ">failure rate"), rows)


def correction_tables(result: CorrectionResult) -> list[Table]:
    """The trials; the accuracies before, of the control and after; the classes that lost accuracy."""
    losing = [entry for entry in result.classes if entry.lost > entry.gained][:CLASSES_SHOWN]
    losses = (
        (e.label, str(e.total), str(e.lost), str(e.gained), percent((e.lost - e.gained) / e.total)) for e in losing
    )
    return [
        _trial_table(result),
        *([_set_table(result)] if result.sets else []),
        *([_table(("class", ">test images", ">lost", ">gained", ">drop"), losses)] if losing else []),
    ]


def failure_mode_table(modes: Sequence[FailureModeResult]) -> Table:
    """Failure modes of real images; the increase over the base error rate is in percentage points."""
    rows = (
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
        for mode in modes
    )
    numbers = (">error rate", f">{interval_name(0.95)}", ">increase", ">base", ">coverage", ">images")
    return _table(("group", "rule", *numbers), rows)


def _trial_table(result: CorrectionResult) -> Table:
    """The uncorrected model, then one row per trial."""

    def shares(trial: TrialResult) -> tuple[str, ...]:
        shifted = "" if trial.mean_accuracy is None else percent(trial.mean_accuracy)
        return percent(trial.validation), shifted, percent(trial.worst_scenario), percent(trial.mean_scenario)

    rows: list[tuple[str, ...]] = [("before", "", "", *shares(result.before))]
    for trial in result.trials:
        name = f"{trial.lambda_:g}" + (f" ({trial.role})" if trial.role else "")
        rows.append((name, str(trial.epochs), f"{trial.alpha:g}", *shares(trial)))
    marks: list[Mark] = [None, *("chosen" if "chosen" in trial.role else None for trial in result.trials)]
    numbers = (">epochs", ">alpha", ">validation", ">and shifted", ">correction tiles: worst", ">mean")
    return _table(("lambda", *numbers), rows, marks)


def _set_table(result: CorrectionResult) -> Table:
    rows = []
    for entry in result.sets:
        shares = [share(count, entry.total) for count in (entry.before, entry.control, entry.after)]
        gains = [f"{100 * (entry.after - count) / max(1, entry.total):+.1f}" for count in (entry.before, entry.control)]
        rows.append((entry.name, entry.kind, str(entry.total), *shares, *gains))
    numbers = (">images", ">before", ">control", ">after", ">after - before", ">after - control")
    return _table(("set", "kind", *numbers), rows)


def _table(titles: Iterable[str], rows: Iterable[tuple[str, ...]], marks: Iterable[Mark] | None = None) -> Table:
    """A table; ``>`` before a title says that the column has numbers."""
    columns = (Column(title.removeprefix(">"), title.startswith(">")) for title in titles)
    return Table(tuple(columns), tuple(map(Row, rows, marks or repeat(None))))
