"""Results as one self-contained HTML file: no script, nothing fetched."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pytest_defuse.discover.results import CandidateResult, DiscoveryResult, NoveltyResult
from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.report import charts, correction, tables, words
from pytest_defuse.report.charts import Confusion, Histogram, Scatter
from pytest_defuse.report.flips import flips_of
from pytest_defuse.report.pictures import Album, Sheet
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import Table
from pytest_defuse.scenarios.bounds import Outcome

PICTURE_BUDGET = 3_500_000
MOST_BARS = 8
CAPTION = 130
"""About as many characters as the page needs to show one tile with its verdict."""


@dataclass(frozen=True)
class Bar:
    """How many tiles the model took for a class; ``wanted`` is the class that they show."""

    name: str
    count: int
    share: float
    wanted: bool


@dataclass(frozen=True)
class Gauge:
    """An accuracy with its interval and its bound, each in [0, 1]."""

    low: float
    value: float
    high: float
    bound: float


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet and what is said beside it; ``place`` is a CSS background position."""

    place: str
    number: int
    sure: str
    says: str
    wrong: bool


@dataclass(frozen=True)
class Group:
    """All tiles that the model takes for one class."""

    name: str
    wanted: bool
    tiles: list[Tile]


@dataclass(frozen=True)
class Pair:
    """A picture of a region beside the nearest training image that the model gets wrong."""

    tile: str
    nearest: str
    says: str


@dataclass(frozen=True)
class Card:
    """A scenario or a candidate: its pictures, what the model says of them, and what to type."""

    id: str
    facts: list[str]
    sheet: Sheet
    bars: list[Bar]
    commands: list[str]
    outcome: Outcome | None = None
    badge: str = ""
    gauge: Gauge | None = None
    checks: Table | None = None
    histogram: Histogram | None = None
    groups: Sequence[Group] = ()
    nearest: Sheet | None = None
    pairs: Sequence[Pair] = ()
    novelty: str = ""


@dataclass(frozen=True)
class FlipGroup:
    """The flips of one set of images; ``more`` are not shown."""

    name: str
    sheet: Sheet
    tiles: list[Tile]
    more: int


@dataclass(frozen=True)
class Plot:
    """Confidences and confusions of one set of images."""

    title: str
    histogram: Histogram | None
    confusion: Confusion


def render_html(results: Results, start: Path = Path(), budget: int = PICTURE_BUDGET) -> str:
    """All results as one HTML page.

    Args:
        start: paths are shown relative to it.
        budget: most characters that pictures and what is said of each take.
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
    # What fails comes first, so that it is what gets a picture.
    worst_first = sorted(results.scenarios, key=lambda scenario: words.WORST_FIRST.index(scenario.outcome))
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
    accuracy = result.accuracy
    low, high = accuracy.interval
    places = result.tiles or list(range(len(result.predicted)))
    sheet = album.held_out(result.id, result.folder, result.sheet_tiles or len(places), CAPTION * len(places))
    return Card(
        id=result.id,
        facts=[
            f"label {result.label}",
            words.measured(accuracy),
            f"bound {words.bound_of(result)}: {result.reason}",
        ],
        sheet=sheet,
        bars=_bars(Counter(result.predicted), result.label),
        commands=[words.gate_command(result, arguments)],
        outcome=result.outcome,
        badge=words.verdict(result),
        gauge=Gauge(low, accuracy.value, high, result.bound) if result.total else None,
        checks=tables.check_table(result) if len(result.checks) > 1 else None,
        histogram=charts.confidence_histogram(
            result.confidences, [name == result.label for name in result.predicted[: len(result.confidences)]]
        ),
        groups=_groups(result, places, sheet) if sheet.data else (),
    )


def _groups(result: ScenarioResult, places: Sequence[int], sheet: Sheet) -> list[Group]:
    """The tiles of each predicted class, the most frequent mistake first and what is right last."""
    counts = Counter(result.predicted)
    sure = [f"{confidence:.0%}" for confidence in result.confidences] or [""] * len(places)
    order = sorted(
        range(len(places)),
        key=lambda at: (
            result.predicted[at] == result.label,
            -counts[result.predicted[at]],
            result.predicted[at],
            places[at],
        ),
    )
    return [
        Group(
            name,
            name == result.label,
            [Tile(sheet.place(places[at]), places[at], sure[at], name, name != result.label) for at in some],
        )
        for name, some in groupby(order, key=lambda at: result.predicted[at])
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


def _pairs(novelty: NoveltyResult, sheet: Sheet, nearest: Sheet) -> list[Pair]:
    shown = zip(novelty.tiles, novelty.labels, novelty.predicted, strict=True)
    return [
        Pair(sheet.place(tile), nearest.place(at), f"{label} as {predicted}")
        for at, (tile, label, predicted) in enumerate(shown)
    ]


def _flip_groups(results: Results, sheets: Mapping[str, Sheet], album: Album) -> list[FlipGroup]:
    groups = []
    for judged in results.sets:
        flips = flips_of(judged)
        if not flips or judged.comparison is None:
            continue
        if isinstance(judged, ScenarioResult):
            sheet, places = sheets[judged.id], [flip.number for flip in flips]
        else:
            sheet = album.encoded(words.name_of(judged), judged.flip_sheet, len(flips))
            places = list(range(len(flips)))
        tiles = [
            Tile(sheet.place(at), flip.number, flip.confidence, f"{flip.label} → {flip.predicted}", wrong=True)
            for at, flip in zip(places, flips, strict=True)
        ]
        groups.append(FlipGroup(words.name_of(judged), sheet, tiles, len(judged.comparison.lost) - len(flips)))
    return groups


def _plots(results: Results) -> list[Plot]:
    plots = [
        Plot(
            words.name_of(t),
            charts.confidence_histogram(
                t.confidences, [a == b for a, b in zip(t.labels, t.predicted, strict=True)] if t.confidences else []
            ),
            charts.confusion(zip(t.labels, t.predicted, strict=True)),
        )
        for t in results.test_sets
        if t.labels
    ]
    pairs = [(s.label, name) for s in results.scenarios for name in s.predicted]
    return [*plots, Plot("scenarios", None, charts.confusion(pairs))] if pairs else plots


def _scatters(discovery: DiscoveryResult) -> list[Scatter]:
    return charts.scatters(discovery.latent_map) if discovery.latent_map else []


def _bars(predicted: Mapping[str, int], wanted: str) -> list[Bar]:
    """The classes that tiles were taken for, most frequent first; of many, the rare share the last bar."""
    ranked = Counter(predicted).most_common()
    total = sum(predicted.values())
    bars = [Bar(name, count, count / total, name == wanted) for name, count in ranked[:MOST_BARS]]
    if rest := ranked[MOST_BARS:]:
        count = sum(count for _, count in rest)
        bars.append(Bar(f"{len(rest)} more", count, count / total, wanted=False))
    return bars
