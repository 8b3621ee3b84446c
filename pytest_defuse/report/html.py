"""Results as one self-contained HTML file, without scripts and external resources."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pytest_defuse.discover.results import CandidateResult, DiscoveryResult, NoveltyResult
from pytest_defuse.gate.checks import WORST_FIRST, Outcome
from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.gate.results import ScenarioResult, Verdict
from pytest_defuse.report import charts, correction, tables, words
from pytest_defuse.report.album import Album, EmbeddedSheet
from pytest_defuse.report.charts import Confusion, Histogram, Scatter
from pytest_defuse.report.flips import flips_of
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import Table

IMAGE_BUDGET = 3_500_000
"""Characters for images: with the text of many scenarios, the page stays below 5 MB (tests/report/test_html.py)."""
BARS_SHOWN = 8
"""Predicted classes with a bar of their own: as many as fit beside a sheet."""
CAPTION = 130
"""About the number of characters that the page needs for one tile with its prediction."""


@dataclass(frozen=True)
class Bar:
    """The number of tiles that the model predicts as one class; ``correct`` if it is their label."""

    name: str
    count: int
    share: float
    correct: bool


@dataclass(frozen=True)
class Gauge:
    """An accuracy with its interval and its bound, each in [0, 1]."""

    low: float
    value: float
    high: float
    bound: float


@dataclass(frozen=True)
class PredictedTile:
    """One tile of a sheet with its prediction; ``place`` is a CSS background position."""

    place: str
    number: int
    confidence: str
    predicted: str
    wrong: bool


@dataclass(frozen=True)
class Group:
    """All tiles with the same predicted class; ``correct`` if it is their label."""

    name: str
    correct: bool
    tiles: list[PredictedTile]


@dataclass(frozen=True)
class Pair:
    """A tile of a region and the nearest misclassified training image, as CSS background positions."""

    tile: str
    nearest: str
    error: str


@dataclass(frozen=True)
class Card:
    """A scenario or a candidate: its sheet, the model's predictions, and the commands to run."""

    id: str
    facts: list[str]
    sheet: EmbeddedSheet
    bars: list[Bar]
    commands: list[str]
    outcome: Outcome | None = None
    badge: str = ""
    gauge: Gauge | None = None
    checks: Table | None = None
    histogram: Histogram | None = None
    groups: Sequence[Group] = ()
    nearest: EmbeddedSheet | None = None
    pairs: Sequence[Pair] = ()
    novelty: str = ""


@dataclass(frozen=True)
class FlipGroup:
    """The flips of one set of images; ``more`` are not shown."""

    name: str
    sheet: EmbeddedSheet
    tiles: list[PredictedTile]
    more: int


@dataclass(frozen=True)
class Plot:
    """Confidences and confusions of one set of images."""

    title: str
    histogram: Histogram | None
    confusion: Confusion


def render_html(results: Results, start: Path = Path(), budget: int = IMAGE_BUDGET) -> str:
    """All results as one HTML page.

    Args:
        start: paths are shown relative to it.
        budget: maximum number of characters for images and the captions of their tiles.
    """
    environment = Environment(
        loader=PackageLoader("pytest_defuse.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    album = Album(budget)
    # Failing scenarios come first, so that they get the images.
    worst_first = sorted(results.scenarios, key=lambda scenario: WORST_FIRST.index(scenario.outcome))
    cards = {scenario.id: _scenario_card(scenario, results.arguments, album) for scenario in worst_first}
    flips = _flip_groups(results, {name: card.sheet for name, card in cards.items()}, album)
    discoveries = [
        (discovery, _scatters(discovery), [_candidate_card(candidate, album) for candidate in discovery.new])
        for discovery in results.discoveries
    ]
    return environment.get_template("report.html").render(
        results=results,
        start=start,
        words=words,
        tables=tables,
        correcting=correction,
        scenarios=list(cards.values()),
        plots=_plots(results),
        flips=flips,
        discoveries=discoveries,
        album=album,
    )


def _scenario_card(result: ScenarioResult, arguments: Sequence[str], album: Album) -> Card:
    accuracy, predictions = result.accuracy, result.predictions
    low, high = accuracy.interval
    tiles = result.tiles or tuple(range(result.total))
    sheet = album.held_out(
        result.id, result.folder, result.sheet_tiles or len(tiles), result.gap, captions=CAPTION * len(tiles)
    )
    return Card(
        id=result.id,
        facts=[
            f"label {result.label}",
            words.accuracy_text(accuracy),
            f"bound {words.bound_of(result)}: {result.reason}",
        ],
        sheet=sheet,
        bars=_bars(Counter(predictions.predicted), result.label),
        commands=[words.gate_command(result, arguments)],
        outcome=result.outcome,
        badge=words.outcome_text(result),
        gauge=Gauge(low, accuracy.value, high, result.bound) if result.total else None,
        checks=tables.check_table(result) if len(result.checks) > 1 else None,
        histogram=_histogram(predictions),
        groups=_groups(result, tiles, sheet) if sheet.data else (),
    )


def _histogram(predictions: LabelledPredictions) -> Histogram | None:
    # Without confidences the histogram is empty, however many predictions there are.
    pairs = zip(predictions.confidences, predictions.labels, predictions.predicted, strict=False)
    return charts.confidence_histogram([(confidence, label == predicted) for confidence, label, predicted in pairs])


def _groups(result: ScenarioResult, tiles: Sequence[int], sheet: EmbeddedSheet) -> list[Group]:
    """The tiles by predicted class, the most frequent error first and the correct ones last."""
    predicted = result.predictions.predicted
    correct = [label == name for label, name in zip(result.predictions.labels, predicted, strict=True)]
    counts = Counter(predicted)
    confidences = [f"{confidence:.0%}" for confidence in result.predictions.confidences] or [""] * len(tiles)
    order = sorted(
        range(len(tiles)),
        key=lambda index: (
            correct[index],
            -counts[predicted[index]],
            predicted[index],
            tiles[index],
        ),
    )
    return [
        Group(
            name,
            right,
            [
                PredictedTile(sheet.place(tiles[index]), tiles[index], confidences[index], name, not right)
                for index in indices
            ],
        )
        for (right, name), indices in groupby(order, key=lambda index: (correct[index], predicted[index]))
    ]


def _candidate_card(candidate: CandidateResult, album: Album) -> Card:
    novelty = candidate.novelty
    sheet = album.held_out(candidate.id, candidate.folder, sum(candidate.predicted.values()))
    nearest = album.encoded(candidate.id, novelty.sheet, len(novelty.tiles)) if novelty and sheet.data else None
    return Card(
        id=candidate.id,
        facts=[
            f"proposed label {candidate.proposed_label}",
            f"{words.fraction(candidate.failed, candidate.drawn)} of fresh draws fail",
        ],
        sheet=sheet,
        bars=_bars(candidate.predicted, candidate.proposed_label),
        commands=[
            words.label_command(candidate.id, candidate.proposed_label),
            words.reject_command(candidate.id),
        ],
        nearest=nearest,
        pairs=_pairs(novelty, sheet, nearest) if novelty and nearest else (),
        novelty=words.novelty_sentence(candidate),
    )


def _pairs(novelty: NoveltyResult, sheet: EmbeddedSheet, nearest: EmbeddedSheet) -> list[Pair]:
    rows = zip(novelty.tiles, novelty.labels, novelty.predicted, strict=True)
    return [
        Pair(sheet.place(tile), nearest.place(index), f"{label} as {predicted}")
        for index, (tile, label, predicted) in enumerate(rows)
    ]


def _flip_groups(results: Results, sheets: Mapping[str, EmbeddedSheet], album: Album) -> list[FlipGroup]:
    groups = []
    for verdict in results.sets:
        flips = flips_of(verdict)
        if not flips or verdict.comparison is None:
            continue
        if isinstance(verdict, ScenarioResult):
            sheet, positions = sheets[verdict.id], [flip.number for flip in flips]
        else:
            sheet = album.encoded(verdict.name, verdict.flip_sheet, len(flips))
            positions = list(range(len(flips)))
        tiles = [
            PredictedTile(
                sheet.place(position), flip.number, flip.confidence, f"{flip.label} → {flip.predicted}", wrong=True
            )
            for position, flip in zip(positions, flips, strict=True)
        ]
        groups.append(FlipGroup(verdict.name, sheet, tiles, len(verdict.comparison.lost) - len(flips)))
    return groups


def _plots(results: Results) -> list[Plot]:
    plots = [Plot(t.name, _histogram(t.predictions), _confusion([t])) for t in results.test_sets]
    return [*plots, Plot("scenarios", None, _confusion(results.scenarios))] if results.scenarios else plots


def _confusion(verdicts: Sequence[Verdict]) -> Confusion:
    parts = [verdict.predictions for verdict in verdicts]
    return charts.confusion(pair for part in parts for pair in zip(part.labels, part.predicted, strict=True))


def _scatters(discovery: DiscoveryResult) -> list[Scatter]:
    return charts.scatters(discovery.latent_map) if discovery.latent_map else []


def _bars(predicted: Mapping[str, int], label: str) -> list[Bar]:
    """The predicted classes, most frequent first; the rare ones share the last bar."""
    ranked = Counter(predicted).most_common()
    total = sum(predicted.values())
    bars = [Bar(name, count, count / total, name == label) for name, count in ranked[:BARS_SHOWN]]
    if rest := ranked[BARS_SHOWN:]:
        count = sum(count for _, count in rest)
        bars.append(Bar(f"{len(rest)} more", count, count / total, correct=False))
    return bars
