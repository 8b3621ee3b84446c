"""Results as one self-contained HTML file: no script, nothing fetched."""

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pytest_defuse.gate.bounds import Outcome
from pytest_defuse.report import correction, tables, words
from pytest_defuse.report.results import CandidateResult, Results, ScenarioResult

PICTURE_BUDGET = 4_000_000
MOST_BARS = 8
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URL, or why there is none."""

    url: str = ""
    problem: str = ""


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
class Card:
    """A scenario or a candidate: its pictures, what the model says of them, and what to type."""

    id: str
    facts: list[str]
    sheet: Picture
    bars: list[Bar]
    commands: list[str]
    outcome: Outcome | None = None
    gauge: Gauge | None = None


class Album:
    """Pictures for one page, as long as its budget lasts.

    Attributes:
        left: characters of base64 that still fit.
        omitted: ids whose picture did not fit.
    """

    def __init__(self, budget: int) -> None:
        """An album of at most ``budget`` characters of base64."""
        self.left = budget
        self.omitted: list[str] = []

    def held_out(self, scenario_id: str, folder: str) -> Picture:
        """The held-out sheet of a scenario."""
        path = Path(folder) / "held_out.png"
        try:
            if _base64_size(path.stat().st_size) > self.left:
                self.omitted.append(scenario_id)
                return Picture(problem="picture left out: other pictures fill this file")
            data = path.read_bytes()
        except OSError as error:
            return Picture(problem=f"no picture: held_out.png cannot be read ({error.strerror})")
        if not data.startswith(PNG_SIGNATURE):
            return Picture(problem="no picture: held_out.png is not a PNG (with Git LFS, run 'git lfs pull')")
        self.left -= _base64_size(len(data))
        return Picture(url=f"data:image/png;base64,{base64.b64encode(data).decode()}")


def render_html(results: Results, start: Path = Path(), budget: int = PICTURE_BUDGET) -> str:
    """All results as one HTML page.

    Args:
        start: paths are shown relative to it.
        budget: most characters of base64 that pictures take.
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
    scenarios = [_scenario_card(scenario, album) for scenario in worst_first]
    discoveries = [
        (discovery, [_candidate_card(candidate, album) for candidate in discovery.new])
        for discovery in results.discoveries
    ]
    return environment.get_template("report.html").render(
        results=results,
        start=start,
        words=words,
        tables=tables,
        correcting=correction,
        scenarios=scenarios,
        discoveries=discoveries,
        omitted=album.omitted,
    )


def _scenario_card(result: ScenarioResult, album: Album) -> Card:
    accuracy = result.accuracy
    low, high = accuracy.interval
    # A corrected model exists only in a run that corrects.
    switch = "" if result.before is None else "--defuse-correct "
    return Card(
        id=result.id,
        facts=[
            f"label {result.label}",
            words.measured(accuracy),
            f"bound {words.percent(result.bound)}: {result.reason}",
        ],
        sheet=album.held_out(result.id, result.folder),
        bars=_bars(Counter(result.predicted), result.label),
        commands=[f"pytest {switch}-k {result.id}"],
        outcome=result.outcome,
        gauge=Gauge(low, accuracy.value, high, result.bound) if result.total else None,
    )


def _candidate_card(candidate: CandidateResult, album: Album) -> Card:
    return Card(
        id=candidate.id,
        facts=[
            f"proposed label {candidate.proposed_label}",
            f"{words.fraction(candidate.failed, candidate.drawn)} of fresh draws fail",
        ],
        sheet=album.held_out(candidate.id, candidate.folder),
        bars=_bars(candidate.predicted, candidate.proposed_label),
        commands=[
            words.label_command(candidate.id, candidate.proposed_label),
            words.reject_command(candidate.id),
        ],
    )


def _bars(predicted: Mapping[str, int], wanted: str) -> list[Bar]:
    """The classes that tiles were taken for, most frequent first; of many, the rare share the last bar."""
    ranked = Counter(predicted).most_common()
    total = sum(predicted.values())
    bars = [Bar(name, count, count / total, name == wanted) for name, count in ranked[:MOST_BARS]]
    if rest := ranked[MOST_BARS:]:
        count = sum(count for _, count in rest)
        bars.append(Bar(f"{len(rest)} more", count, count / total, wanted=False))
    return bars


def _base64_size(size: int) -> int:
    return (size + 2) // 3 * 4
