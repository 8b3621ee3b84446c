"""A correction in a report: its tables, notes, and the trade-off as a figure."""

from dataclasses import dataclass

from pytest_defuse.correct.audit import SetScore
from pytest_defuse.correct.results import CorrectionResult, TrialResult
from pytest_defuse.report.tables import Column, Row, Table, trial_table
from pytest_defuse.report.words import percent, share

CLASSES_SHOWN = 5
"""Classes in the table of losses, those that lost most: as many rows as the other tables have."""

WIDTH, HEIGHT, MARGIN = 460, 300, 48
"""Of the figure, in pixels; its margin holds the axes' labels."""
NAME = 56, 12
"""Maximum width and height of a point's name, in pixels: ten characters of 11 pixels."""


def correction_tables(result: CorrectionResult) -> list[Table]:
    """The trials; the accuracies before, of the control and after; the classes that lost accuracy."""
    tables = [trial_table(result)]
    if result.sets:
        tables.append(_sets(result))
    if any(entry.lost > entry.gained for entry in result.classes):
        tables.append(_classes(result))
    return tables


def correction_notes(result: CorrectionResult) -> list[str]:
    """Remarks beside the tables."""
    notes = []
    if result.sets:
        notes.append(
            "the trial was chosen on validation images, their shifted copies and correction tiles; held-out tiles, the "
            "test set, shifted copies of it and shift sets were evaluated once, afterwards"
        )
        notes.append(f"test images that were correct and are wrong: {result.lost}; the reverse: {result.gained}")
    if result.image_passes:
        notes.append(f"{result.image_passes:,} images went forward and backward, including those of the control")
    return notes + result.notes


def tradeoff_mermaid(result: CorrectionResult) -> str:
    """Validation and scenario accuracy of the trials as a Mermaid chart, which GitHub draws; empty for one trial."""
    trials = sorted(_points(result), key=lambda point: point.trial.mean_scenario)
    if len(trials) < 2:
        return ""
    names = ", ".join(f'"{point.name}"' for point in trials)
    validation = ", ".join(f"{100 * point.trial.validation:.1f}" for point in trials)
    scenarios = ", ".join(f"{100 * point.trial.mean_scenario:.1f}" for point in trials)
    lines = (
        "```mermaid",
        "xychart-beta",
        '    title "Accuracy in percent: validation images (first line), correction tiles (second)"',
        f"    x-axis [{names}]",
        '    y-axis "accuracy" 0 --> 100',
        f"    line [{validation}]",
        f"    line [{scenarios}]",
        "```",
    )
    return "\n".join(lines)


def tradeoff_svg(result: CorrectionResult) -> str:
    """Validation accuracy over accuracy on correction tiles, for each lambda and alpha (Defuse, figure 5), as SVG."""
    points = _points(result)
    xs, ys = [p.trial.mean_scenario for p in points], [p.trial.validation for p in points]
    low, high = min(ys), max(ys)
    low, high = low - 0.1 * (high - low) - 0.001, high + 0.1 * (high - low) + 0.001
    left, right = min(xs), 1.0
    left -= 0.05 * (right - left) + 0.001

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / (right - left), (y - low) / (high - low)
        return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg class="tradeoff" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        'aria-label="validation accuracy over scenario accuracy of every trial" fill="currentColor" '
        'font-size="11" font-family="sans-serif">'
    ]
    parts += _axes(left, right, low, high)
    path = [p for p in points if p.interpolated]
    if path:
        ends = sorted(path, key=lambda p: p.trial.alpha)
        line = " ".join("{:.1f},{:.1f}".format(*place(p.trial.mean_scenario, p.trial.validation)) for p in ends)
        parts.append(f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-dasharray="3 3"/>')
    named: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: "chosen" not in point.trial.role):
        x, y = place(point.trial.mean_scenario, point.trial.validation)
        radius, fill = (6, "currentColor") if "chosen" in point.trial.role else (4, "none")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="currentColor">'
            f"<title>{point.name}</title></circle>"
        )
        # Of two names that would overlap, the second is only in its circle's tooltip.
        if all(abs(x - a) > NAME[0] or abs(y - b) > NAME[1] for a, b in named):
            parts.append(f'<text x="{x - 8:.1f}" y="{y - 7:.1f}" text-anchor="end">{point.name}</text>')
            named.append((x, y))
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Point:
    name: str
    trial: TrialResult
    interpolated: bool


def _points(result: CorrectionResult) -> list[_Point]:
    """The uncorrected model, the last epoch of every lambda, and models interpolated between old and new weights."""
    last: dict[tuple[float, float, float], TrialResult] = {}
    for trial in result.trials:
        last[trial.lambda_, trial.learning_rate, trial.alpha] = trial
    between = {(lambda_, rate) for lambda_, rate, alpha in last if alpha < 1}
    points = [_Point("before", result.before, bool(between))]
    for (lambda_, rate, alpha), trial in last.items():
        name = f"{lambda_:g}" + ("" if alpha == 1 else f" at {alpha:g}")
        points.append(_Point(name, trial, (lambda_, rate) in between))
    return points


def _axes(left: float, right: float, low: float, high: float) -> list[str]:
    bottom, far = HEIGHT - MARGIN, WIDTH - MARGIN
    return [
        f'<path d="M{MARGIN} {MARGIN}V{bottom}H{far}" fill="none" stroke="currentColor"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">accuracy on correction tiles</text>',
        f'<text x="{MARGIN}" y="{bottom + 15}">{percent(left)}</text>',
        f'<text x="{far}" y="{bottom + 15}" text-anchor="end">{percent(right)}</text>',
        f'<text x="{MARGIN - 6}" y="{MARGIN - 22}">validation accuracy, each point a lambda (at an alpha)</text>',
        f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">{percent(low)}</text>',
        f'<text x="{MARGIN - 4}" y="{MARGIN + 8}" text-anchor="end">{percent(high)}</text>',
    ]


def _sets(result: CorrectionResult) -> Table:
    titles = ("images", "before", "control", "after", "after - before", "after - control")
    columns = (Column("set", numeric=False), Column("kind", numeric=False), *(Column(t, numeric=True) for t in titles))
    return Table(columns, tuple(_set_row(entry) for entry in result.sets))


def _set_row(entry: SetScore) -> Row:
    shares = [share(count, entry.total) for count in (entry.before, entry.control, entry.after)]
    gains = [f"{100 * (entry.after - count) / max(1, entry.total):+.1f}" for count in (entry.before, entry.control)]
    return Row((entry.name, entry.kind, str(entry.total), *shares, *gains))


def _classes(result: CorrectionResult) -> Table:
    columns = (
        Column("class", numeric=False),
        *(Column(t, numeric=True) for t in ("test images", "lost", "gained", "drop")),
    )
    losing = [entry for entry in result.classes if entry.lost > entry.gained][:CLASSES_SHOWN]
    rows = (
        (
            entry.label,
            str(entry.total),
            str(entry.lost),
            str(entry.gained),
            percent((entry.lost - entry.gained) / entry.total),
        )
        for entry in losing
    )
    return Table(columns, tuple(Row(cells) for cells in rows))
