"""The HTML page: self-contained, whatever class names and sheets contain."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.discover.results import CandidateResult, DiscoveryResult, LatentMapResult, NoveltyResult
from pytest_defuse.gate.checks import Comparison
from pytest_defuse.gate.results import ScenarioResult, TestSetResult
from pytest_defuse.report.album import PNG_SIGNATURE
from pytest_defuse.report.html import render_html
from pytest_defuse.report.results import Results
from pytest_defuse.scenarios.sheets import encode_sheet

VOID = {"meta", "br", "img"}
INLINE = re.compile(r"\.(sheet-\d+) \{ background-image: url\(data:image/png;base64,([^)]*)\); \}")


class Page(HTMLParser):
    """A page's tags, visible text and sheets; every tag must be closed in order."""

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

    def sheets(self) -> list[bytes]:
        """Every contact sheet that the page carries; each is shown somewhere."""
        sheets = INLINE.findall(self.style)
        shown = {name for _, attributes in self.tags for name in (attributes.get("class") or "").split()}
        assert all(name in shown for name, _ in sheets)
        return [base64.b64decode(data) for _, data in sheets]

    def classes(self, tag: str) -> list[str]:
        return [attributes.get("class") or "" for name, attributes in self.tags if name == tag]


def test_nothing_is_fetched_and_nothing_runs(everything: Results, add_sheet: Callable[..., str]) -> None:
    for result in everything.scenarios:
        add_sheet(result.id)
    page = Page(render_html(everything))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
        assert "url(" not in (attributes.get("style") or "")
    assert "url(" not in INLINE.sub("", page.style)
    assert "@import" not in page.style
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_link_leads_somewhere_on_the_page(everything: Results) -> None:
    page = Page(render_html(everything))
    targets = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links
    assert all(link is not None and link.removeprefix("#") in targets for link in links)


def test_light_dark_and_phones(everything: Results) -> None:
    page = Page(render_html(everything))
    assert "prefers-color-scheme: dark" in page.style
    assert "image-rendering: pixelated" in page.style
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_a_class_name_is_text(scenario: Callable[..., ScenarioResult]) -> None:
    page = Page(render_html(Results(scenarios=[scenario(label="<b>|x", correct=256)])))
    assert "b" not in {tag for tag, _ in page.tags}
    assert "\n<b>|x\n" in page.text
    assert "\nlabel <b>|x\n" in page.text


def test_the_headline_has_the_worst_outcome(everything: Results, correction: Callable[..., CorrectionResult]) -> None:
    assert Page(render_html(everything)).classes("h1") == ["FAIL"]
    assert Page(render_html(Results(corrections=[correction()]))).classes("h1") == ["PASS"]
    missed = Results(corrections=[correction(problems=["too bad"])])
    assert Page(render_html(missed)).classes("h1") == ["FAIL"]


def test_a_run_without_verdicts_has_no_outcome(discovery: Callable[..., DiscoveryResult]) -> None:
    assert Page(render_html(Results(discoveries=[discovery()]))).classes("h1") == [""]


def test_a_scenario_shows_its_sheet_and_how_to_run_it(
    scenario: Callable[..., ScenarioResult], add_sheet: Callable[..., str]
) -> None:
    result = scenario()
    folder = add_sheet(result.id)
    page = Page(render_html(Results(scenarios=[result])))
    assert page.sheets() == [(Path(folder) / "held_out.png").read_bytes()]
    assert "pytest -k 3-as-5-a1b2c3" in page.text
    assert "bound 90.0%: min_accuracy" in page.text


def test_a_corrected_scenario_is_run_with_the_correction(scenario: Callable[..., ScenarioResult]) -> None:
    page = Page(render_html(Results(scenarios=[scenario(correct_before=3)], arguments=("--defuse-correct",))))
    assert "pytest --defuse-correct -k 3-as-5-a1b2c3" in page.text


def test_what_fails_comes_first_and_open(everything: Results) -> None:
    page = Page(render_html(everything))
    places = [page.text.index(f"-k {result.id}") for result in everything.scenarios]
    assert places[1] < places[2] < places[0]
    cards = [("open" in attributes) for tag, attributes in page.tags if attributes.get("class") == "card"]
    assert cards[:3] == [True, True, False]


def test_bars_count_what_the_model_says(scenario: Callable[..., ScenarioResult]) -> None:
    predicted = ["3"] * 64 + ["5"] * 128 + [f"rare {n}" for n in range(64)]
    page = Page(render_html(Results(scenarios=[scenario(correct=64, predicted=predicted)])))
    bars = [a for tag, a in page.tags if tag == "span" and (a.get("class") or "") in ("bar", "bar correct")]
    assert bars[:2] == [
        {"class": "bar", "style": "width: 50.0%"},
        {"class": "bar correct", "style": "width: 25.0%"},
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
    assert len(page.sheets()) == 1
    assert "pytest-defuse label 9-as-4-d4e5f6 --label 'a cat'" in page.text
    assert "pytest-defuse label 9-as-4-d4e5f6 --reject" in page.text


def test_a_missing_sheet_is_named(scenario: Callable[..., ScenarioResult]) -> None:
    page = Page(render_html(Results(scenarios=[scenario()])))
    assert page.sheets() == []
    assert "no sheet: held_out.png cannot be read (" in page.text


def test_a_git_lfs_pointer_is_no_sheet(scenario: Callable[..., ScenarioResult], add_sheet: Callable[..., str]) -> None:
    result = scenario()
    (Path(add_sheet(result.id)) / "held_out.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    page = Page(render_html(Results(scenarios=[result])))
    assert page.sheets() == []
    assert "git lfs pull" in page.text


@pytest.fixture
def large(scenario: Callable[..., ScenarioResult], store: Path) -> Results:
    """Four scenarios with sheets of 1.2 MB, the last of which fails."""
    results = [scenario(f"{n}-as-0-000000", 100 if n == 4 else 250) for n in range(1, 5)]
    for result in results:
        folder = store / result.id
        folder.mkdir(parents=True)
        (folder / "held_out.png").write_bytes(PNG_SIGNATURE + bytes(1_200_000))
    return Results(scenarios=results)


def test_sheets_keep_to_a_budget_and_failing_scenarios_come_first(large: Results) -> None:
    source = render_html(large)
    page = Page(source)
    assert len(source) < 5_000_000
    assert len(page.sheets()) == 2
    assert "Sheets left out to keep this file small: 2-as-0-000000, 3-as-0-000000" in page.text


def test_a_budget_leaves_room_for_small_sheets(
    large: Results, scenario: Callable[..., ScenarioResult], add_sheet: Callable[..., str]
) -> None:
    small = scenario("9-as-0-000000")
    add_sheet(small.id)
    page = Page(render_html(Results(scenarios=[*large.scenarios, small]), budget=100_000))
    assert len(page.sheets()) == 1


def test_a_scenario_without_tiles(scenario: Callable[..., ScenarioResult]) -> None:
    empty = scenario(correct=0, total=0, outcome="INCONCLUSIVE")
    page = Page(render_html(Results(scenarios=[empty])))
    assert "0/0" in page.text
    assert "gauge" not in page.classes("div")


def test_no_results() -> None:
    assert "pytest-defuse: no results" in Page(render_html(Results())).text


def tiles(page: Page) -> list[tuple[str, str]]:
    """Each tile's sheet and place."""
    shown = [a for tag, a in page.tags if tag == "i" and (a.get("class") or "").startswith("tile")]
    return [((a["class"] or "").split()[1], (a["style"] or "").removeprefix("background-position: ")) for a in shown]


def test_every_tile_has_its_prediction_beside_it(
    scenario: Callable[..., ScenarioResult], add_sheet: Callable[..., str]
) -> None:
    result = scenario(predicted=["3", "5", "3"], confidences=[0.9, 0.61, 1.0], tiles=(0, 7, 15), sheet_tiles=16)
    add_sheet(result.id)
    page = Page(render_html(Results(scenarios=[result])))
    # Of 4 x 4 tiles, number 7 is in the second row and the last column; what is wrong comes first.
    assert [place for _, place in tiles(page)] == ["100% 33.33%", "0% 0%", "100% 100%"]
    text = " ".join(page.text.split())
    assert "Misclassified as 5 (1) 7 61% 5 Correct: 3 (2) 0 90% 3 15 100% 3" in text


def test_tiles_are_found_on_a_sheet_with_gaps(scenario: Callable[..., ScenarioResult], store: Path) -> None:
    """Three columns of 8 and two of 2 pixels: the sheet is 28 pixels wide, and a tile shows 8 of them."""
    result = scenario(correct=9, total=9, gap=2)
    (store / result.id).mkdir(parents=True)
    Image.new("L", (28, 28)).save(store / result.id / "held_out.png")
    page = Page(render_html(Results(scenarios=[result])))
    assert [place for _, place in tiles(page)][3:6] == ["0% 50%", "50% 50%", "100% 50%"]
    assert ".tile.sheet-0 { background-size: 350% 350%; aspect-ratio: 1.0000; }" in page.style


def test_flips_are_shown_with_thumbnails(
    scenario: Callable[..., ScenarioResult],
    tested: TestSetResult,
    compare: Callable[..., Comparison],
    add_sheet: Callable[..., str],
) -> None:
    flipped = scenario(
        predicted=["3"] * 254 + ["5", "8"],
        comparison=compare(256, lost=[255]),
    )
    add_sheet(flipped.id, tiles=256)
    sheet = base64.b64encode(encode_sheet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))).decode()
    fours = replace(tested.predictions, labels=("4",) * 1000)
    comparison = compare(1000, lost=[17, 900], gained=[3])
    test_set = replace(tested, predictions=fours, flip_sheet=sheet, comparison=comparison)
    page = Page(render_html(Results(scenarios=[flipped], test_sets=[test_set])))
    assert tiles(page)[:3] == [("sheet-0", "100% 100%"), ("sheet-1", "0% 0"), ("sheet-1", "100% 0")]
    text = " ".join(page.text.split())
    assert "3-as-5-a1b2c3 255 3 → 8 test set of digits 17 4 → 3 900 4 → 3" in text
    assert "test set of digits 2 1 1,000 1.000 1.000" in text


def test_charts_of_confidence_and_confusion(tested: TestSetResult) -> None:
    values = {"labels": ("3",) * 900 + ("5",) * 100, "predicted": ("3",) * 1000, "confidences": (0.97,) * 1000}
    test_set = replace(tested, predictions=replace(tested.predictions, **values))
    page = Page(render_html(Results(test_sets=[test_set])))
    assert "confidence 95 to 100%: 900 correct, 100 wrong" in page.text
    cells = [(a["class"], a["style"]) for tag, a in page.tags if tag == "td" and "style" in a]
    assert cells == [("correct", "--share: 100.0%"), ("wrong", "--share: 100.0%")]


def test_a_latent_map_and_the_nearest_errors(
    discovery: Callable[..., DiscoveryResult],
    candidate: Callable[..., CandidateResult],
    add_sheet: Callable[..., str],
) -> None:
    nearest = base64.b64encode(encode_sheet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))).decode()
    novelty = NoveltyResult([4, 9], ["9", "7"], ["4", "1"], [0.11, 0.13], nearest)
    latent = LatentMapResult(["9", "4", "9"], 1, ["9 as 4"], {"PCA": [(0, 0), (9, 9), (2, 4), (30, 40), (500, 500)]})
    new = candidate(novelty=novelty, predicted={"4": 12, "9": 4})
    add_sheet(new.id)
    page = Page(render_html(Results(discoveries=[discovery(new=[new], latent_map=latent)])))
    assert len(page.sheets()) == 2
    dots = [a["d"] for tag, a in page.tags if tag == "path" and a["class"] == "dots"]
    assert dots == ["M9 9h0", "M0 0h0M2 4h0"]
    assert "1: 9 as 4" in page.text
    assert "9 as 4\n" in page.text
    assert "of 2 images, 1 have the same error as the nearest misclassified training image" in page.text


def test_a_page_stays_below_five_megabytes_with_many_large_scenarios(
    scenario: Callable[..., ScenarioResult], store: Path
) -> None:
    results = [scenario(f"{n}-as-0-000000", 100, confidences=[0.5] * 256) for n in range(60)]
    for result in results:
        folder = store / result.id
        folder.mkdir(parents=True)
        (folder / "held_out.png").write_bytes(PNG_SIGNATURE + bytes(120_000))
    source = render_html(Results(scenarios=results))
    assert 2_000_000 < len(source.encode()) < 5_000_000
