"""Results as one self-contained HTML file, without scripts and external resources."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined

from pytest_defuse.discover.results import CandidateResult
from pytest_defuse.gate.checks import WORST_FIRST
from pytest_defuse.gate.predictions import LabelledPredictions
from pytest_defuse.gate.results import ScenarioResult, Verdict
from pytest_defuse.report import charts, correction, tables, words
from pytest_defuse.report.album import Album, EmbeddedSheet
from pytest_defuse.report.results import Results, confidences_of, flips_of
from pytest_defuse.runtime.escaping import visible

IMAGE_BUDGET = 3_500_000
"""Characters for images: with the text of many scenarios, the page stays below 5 MB (tests/report/test_html.py)."""
BARS_SHOWN = 8
"""Predicted classes with a separate bar: as many as fit next to a sheet. Our choice."""
CAPTION = 130
"""Approximate number of characters that the page needs for one tile with its prediction (templates/parts.html)."""


@dataclass(frozen=True)
class PredictedTile:
    """One tile of a sheet with its prediction; ``place`` is a CSS background position."""

    place: str
    number: int
    confidence: str
    predicted: str
    wrong: bool


@dataclass(frozen=True)
class Card:
    """A scenario or a candidate: its sheet, the model's predictions, and the commands to run.

    Attributes:
        bars: predicted classes, each with its number of tiles, its share, and whether it is their label.
        verdict: None for a candidate.
        groups: the tiles by predicted class, with its name and whether it is their label.
        nearest: the sheet of the nearest misclassified training images.
        pairs: the places of a tile and of its nearest training image, and the error on that.
    """

    id: str
    facts: list[str]
    sheet: EmbeddedSheet
    bars: list[tuple[str, int, float, bool]]
    commands: list[str]
    verdict: ScenarioResult | None = None
    histogram: charts.Histogram | None = None
    groups: Sequence[tuple[str, bool, list[PredictedTile]]] = ()
    nearest: EmbeddedSheet | None = None
    pairs: Sequence[tuple[str, str, str]] = ()
    novelty: str = ""


def environment(loader: BaseLoader, **settings: Any) -> Environment:
    """Templates whose values are escaped: as HTML, and characters that are not visible."""
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_shown, **settings)


def _shown(value: Any) -> Any:
    # Markup is made of values that were escaped before.
    return visible(value, lines=True) if isinstance(value, str) and not hasattr(value, "__html__") else value


def render_page(template: str, **values: Any) -> str:
    """Fill a template of this package."""
    loader, settings = PackageLoader("pytest_defuse.report"), dict.fromkeys(("trim_blocks", "lstrip_blocks"), True)
    pages = environment(loader, **settings, keep_trailing_newline=True)
    return pages.get_template(template).render(values)


def render_html(results: Results, start: Path = Path(), budget: int = IMAGE_BUDGET) -> str:
    """All results as one HTML page.

    Args:
        start: paths are shown relative to it.
        budget: maximum number of characters for images and the captions of their tiles.
    """
    album = Album(budget)
    # Failing scenarios come first, so that they get the images.
    worst_first = sorted(results.scenarios, key=lambda scenario: WORST_FIRST.index(scenario.outcome))
    cards = {(s.subject, s.id): _scenario_card(s, results.arguments, album) for s in worst_first}
    flips = list(_flip_groups(results, {key: card.sheet for key, card in cards.items()}, album))
    return render_page(
        "report.html",
        results=results,
        start=start,
        words=words,
        tables=tables,
        charts=charts,
        correcting=correction,
        scenarios=list(cards.values()),
        plots=_plots(results),
        flips=flips,
        discoveries=[(found, [_candidate_card(new, album) for new in found.new]) for found in results.discoveries],
        album=album,
    )


def _scenario_card(result: ScenarioResult, arguments: Sequence[str], album: Album) -> Card:
    tiles = result.tiles or tuple(range(result.total))
    sheet = album.held_out(
        result.id, result.folder, result.sheet_tiles or len(tiles), result.gap, captions=CAPTION * len(tiles)
    )
    bound = f"bound {words.bound_of(result)}: {result.reason}"
    return Card(
        id=result.id,
        facts=[f"label {result.label}", words.accuracy_text(result.accuracy), bound],
        sheet=sheet,
        bars=_bars(Counter(result.predictions.predicted), result.label),
        commands=[words.gate_command(result, arguments)],
        verdict=result,
        histogram=_histogram(result.predictions),
        groups=_groups(result.predictions, tiles, sheet) if sheet.data else (),
    )


def _histogram(predictions: LabelledPredictions) -> charts.Histogram | None:
    # Without confidences the histogram is empty, however many predictions there are.
    pairs = zip(predictions.confidences, predictions.labels, predictions.predicted, strict=False)
    return charts.confidence_histogram([(confidence, label == predicted) for confidence, label, predicted in pairs])


def _groups(
    predictions: LabelledPredictions, tiles: Sequence[int], sheet: EmbeddedSheet
) -> list[tuple[str, bool, list[PredictedTile]]]:
    """The tiles by predicted class, the most frequent error first and the correct ones last."""
    counts = Counter(predictions.predicted)
    rows = zip(predictions.labels, predictions.predicted, tiles, confidences_of(predictions), strict=True)
    ordered = sorted((label == name, -counts[name], name, tile, confidence) for label, name, tile, confidence in rows)
    return [
        (
            name,
            right,
            [PredictedTile(sheet.place(tile), tile, confidence, name, not right) for *_, tile, confidence in group],
        )
        for (right, _, name), group in groupby(ordered, key=lambda row: row[:3])
    ]


def _candidate_card(candidate: CandidateResult, album: Album) -> Card:
    novelty, label = candidate.novelty, candidate.proposed_label
    sheet = album.held_out(candidate.id, candidate.folder, sum(candidate.predicted.values()))
    nearest, pairs = None, []
    if novelty and sheet.data:
        nearest = album.encoded(candidate.id, novelty.sheet, len(novelty.tiles))
        rows = enumerate(zip(novelty.tiles, novelty.labels, novelty.predicted, strict=True))
        pairs = [(sheet.place(tile), nearest.place(index), f"{own} as {other}") for index, (tile, own, other) in rows]
    return Card(
        id=candidate.id,
        facts=[f"proposed label {label}", f"{words.fraction(candidate.failed, candidate.drawn)} of fresh draws fail"],
        sheet=sheet,
        bars=_bars(candidate.predicted, label),
        commands=[words.label_command(candidate.id, label), words.reject_command(candidate.id)],
        nearest=nearest,
        pairs=pairs,
        novelty=words.novelty_sentence(candidate),
    )


def _flip_groups(
    results: Results, sheets: Mapping[tuple[str, str], EmbeddedSheet], album: Album
) -> Iterator[tuple[str, EmbeddedSheet, list[PredictedTile], int]]:
    """Of each set of images with flips its name, its sheet, the flips, and how many more there are."""
    for verdict in results.sets:
        flips = flips_of(verdict)
        if not flips or verdict.comparison is None:
            continue
        if isinstance(verdict, ScenarioResult):
            sheet, places = sheets[verdict.subject, verdict.id], [flip.number for flip in flips]
        else:
            sheet, places = album.encoded(verdict.name, verdict.flip_sheet, len(flips)), list(range(len(flips)))
        tiles = [
            PredictedTile(sheet.place(place), f.number, f.confidence, f"{f.label} → {f.predicted}", wrong=True)
            for place, f in zip(places, flips, strict=True)
        ]
        yield verdict.name, sheet, tiles, len(verdict.comparison.lost) - len(flips)


def _plots(results: Results) -> list[tuple[str, charts.Histogram | None, charts.Confusion]]:
    """Title, confidences and confusions: of each test set, and of all scenarios together."""
    plots = [(test.name, _histogram(test.predictions), _confusion([test])) for test in results.test_sets]
    return [*plots, *([("scenarios", None, _confusion(results.scenarios))] if results.scenarios else [])]


def _confusion(verdicts: Sequence[Verdict]) -> charts.Confusion:
    parts = [verdict.predictions for verdict in verdicts]
    return charts.confusion(pair for part in parts for pair in zip(part.labels, part.predicted, strict=True))


def _bars(predicted: Mapping[str, int], label: str) -> list[tuple[str, int, float, bool]]:
    """The predicted classes, most frequent first; the rare ones share the last bar."""
    ranked = Counter(predicted).most_common()
    shown, rest = ranked[:BARS_SHOWN], ranked[BARS_SHOWN:]
    if rest:
        shown.append((f"{len(rest)} more", sum(count for _, count in rest)))
    total = sum(predicted.values())
    return [(name, count, count / total, name == label) for name, count in shown]
