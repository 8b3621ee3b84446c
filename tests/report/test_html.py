"""The HTML page: whole in itself, whatever class names and pictures do."""

import base64
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pytest_defuse.report.html import PNG_SIGNATURE, render_html
from pytest_defuse.report.results import (
    CandidateResult,
    CorrectionResult,
    DiscoveryResult,
    Results,
    ScenarioResult,
)

VOID = {"meta", "img"}


class Page(HTMLParser):
    """A page's tags, visible text and pictures; every tag must be closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.style = ""
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data + "\n"

    def pictures(self) -> list[bytes]:
        sources = [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]
        return [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]

    def classes(self, tag: str) -> list[str]:
        return [attributes.get("class") or "" for name, attributes in self.tags if name == tag]

    def opened(self) -> list[bool]:
        return ["open" in attributes for tag, attributes in self.tags if tag == "details"]


def test_nothing_is_fetched_and_nothing_runs(everything: Results, add_sheet: Callable[..., str]) -> None:
    for result in everything.scenarios:
        add_sheet(result.id)
    page = Page(render_html(everything))
    assert not {"script", "link", "iframe", "a"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert "href" not in attributes
        assert "url(" not in (attributes.get("style") or "")
    assert "url(" not in page.style
    assert "@import" not in page.style
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_light_dark_and_phones(everything: Results) -> None:
    page = Page(render_html(everything))
    assert "prefers-color-scheme: dark" in page.style
    assert "image-rendering: pixelated" in page.style
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_a_class_name_is_text(scenario: Callable[..., ScenarioResult]) -> None:
    page = Page(render_html(Results(scenarios=[scenario(label="<b>|x", predicted=["<b>|x"] * 256)])))
    assert "b" not in {tag for tag, _ in page.tags}
    assert "\n<b>|x\n" in page.text
    assert "\nlabel <b>|x\n" in page.text


def test_headline_wears_the_worst_outcome(everything: Results, correction: Callable[..., CorrectionResult]) -> None:
    assert Page(render_html(everything)).classes("h1") == ["fails"]
    assert Page(render_html(Results(corrections=[correction()]))).classes("h1") == ["holds"]
    missed = Results(corrections=[correction(problems=["too bad"])])
    assert Page(render_html(missed)).classes("h1") == ["fails"]


def test_a_run_that_judges_nothing_has_no_outcome(discovery: Callable[..., DiscoveryResult]) -> None:
    assert Page(render_html(Results(discoveries=[discovery()]))).classes("h1") == [""]


def test_a_scenario_shows_its_sheet_and_how_to_run_it(
    scenario: Callable[..., ScenarioResult], add_sheet: Callable[..., str]
) -> None:
    result = scenario()
    folder = add_sheet(result.id)
    page = Page(render_html(Results(scenarios=[result])))
    assert page.pictures() == [(Path(folder) / "held_out.png").read_bytes()]
    assert "pytest -k 3-as-5-a1b2c3" in page.text
    assert "bound 90.0%: min_accuracy" in page.text


def test_a_corrected_scenario_is_run_with_the_correction(scenario: Callable[..., ScenarioResult]) -> None:
    page = Page(render_html(Results(scenarios=[scenario(before=3)])))
    assert "pytest --defuse-correct -k 3-as-5-a1b2c3" in page.text


def test_what_fails_comes_first_and_open(everything: Results) -> None:
    page = Page(render_html(everything))
    places = [page.text.index(f"-k {result.id}") for result in everything.scenarios]
    assert places[1] < places[2] < places[0]
    assert page.opened()[:3] == [True, True, False]


def test_bars_count_what_the_model_says(scenario: Callable[..., ScenarioResult]) -> None:
    predicted = ["3"] * 64 + ["5"] * 128 + [f"rare {n}" for n in range(64)]
    page = Page(render_html(Results(scenarios=[scenario(correct=64, predicted=predicted)])))
    bars = [a for tag, a in page.tags if tag == "span" and (a.get("class") or "").startswith("bar")]
    assert bars[:2] == [
        {"class": "bar", "style": "width: 50.0%"},
        {"class": "bar wanted", "style": "width: 25.0%"},
    ]
    assert len(bars) == 9
    assert "58 more" in page.text


def test_candidates_show_their_sheet_and_how_to_label_them(
    discovery: Callable[..., DiscoveryResult],
    candidate: Callable[..., CandidateResult],
    add_sheet: Callable[..., str],
) -> None:
    add_sheet("9-as-4-d4e5f6")
    page = Page(render_html(Results(discoveries=[discovery(new=[candidate(proposed_label="a cat")])])))
    assert len(page.pictures()) == 1
    assert "pytest-defuse label 9-as-4-d4e5f6 --label 'a cat'" in page.text
    assert "pytest-defuse label 9-as-4-d4e5f6 --reject" in page.text


def test_a_missing_picture_is_said(scenario: Callable[..., ScenarioResult]) -> None:
    page = Page(render_html(Results(scenarios=[scenario()])))
    assert page.pictures() == []
    assert "no picture: held_out.png cannot be read (No such file or directory)" in page.text


def test_a_git_lfs_pointer_is_no_picture(
    scenario: Callable[..., ScenarioResult], add_sheet: Callable[..., str]
) -> None:
    result = scenario()
    (Path(add_sheet(result.id)) / "held_out.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    page = Page(render_html(Results(scenarios=[result])))
    assert page.pictures() == []
    assert "git lfs pull" in page.text


@pytest.fixture
def large(scenario: Callable[..., ScenarioResult], store: Path) -> Results:
    """Four scenarios with pictures of 1.2 MB, the last of which fails."""
    results = [scenario(f"{n}-as-0-000000", 100 if n == 4 else 250) for n in range(1, 5)]
    for result in results:
        folder = store / result.id
        folder.mkdir(parents=True)
        (folder / "held_out.png").write_bytes(PNG_SIGNATURE + bytes(1_200_000))
    return Results(scenarios=results)


def test_pictures_keep_to_a_budget_that_goes_to_what_fails(large: Results) -> None:
    source = render_html(large)
    page = Page(source)
    assert len(source) < 5_000_000
    assert len(page.pictures()) == 2
    assert "Pictures left out to keep this file small: 2-as-0-000000, 3-as-0-000000" in page.text


def test_a_budget_leaves_room_for_small_pictures(
    large: Results, scenario: Callable[..., ScenarioResult], add_sheet: Callable[..., str]
) -> None:
    small = scenario("9-as-0-000000")
    add_sheet(small.id)
    page = Page(render_html(Results(scenarios=[*large.scenarios, small]), budget=100_000))
    assert len(page.pictures()) == 1


def test_a_scenario_without_tiles(scenario: Callable[..., ScenarioResult]) -> None:
    empty = scenario(correct=0, total=0, predicted=[], outcome="unsure")
    page = Page(render_html(Results(scenarios=[empty])))
    assert "0/0" in page.text
    assert "gauge" not in page.classes("div")


def test_no_results() -> None:
    assert "pytest-defuse: no results" in Page(render_html(Results())).text
