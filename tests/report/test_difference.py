import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pytest_defuse.cli import main
from pytest_defuse.report.captions import captioned, inline
from pytest_defuse.report.difference import headline, render_html, render_markdown
from pytest_defuse.scenarios import revisions
from pytest_defuse.scenarios.differences import Difference, difference
from pytest_defuse.scenarios.revisions import Revision
from pytest_defuse.scenarios.schema import ScenarioRecord
from pytest_defuse.scenarios.sheets import encode_sheet, tile_format
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import exclude, plant, random_tiles, record_of
from tests.scenarios.repository import Repository

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository in which a scenario was accepted, one removed, one added, and tiles of one excluded."""
    repository = Repository(tmp_path)
    store = repository.store
    first, second, third = (plant(store, *tiles(seed), "3", "5") for seed in (1, 2, 3))
    repository.commit()
    store.update(first.id, status="accepted", label="3", notes="<b>bold | new\nline</b>")
    shutil.rmtree(second.folder)
    exclude(third, "held_out", 1)
    plant(store, *tiles(4), "8", "2")
    repository.commit()
    monkeypatch.chdir(tmp_path)
    return repository


def tiles(seed: int):
    return (random_tiles(seed=10 * seed + part) for part in range(2))


@pytest.fixture
def found(repository: Repository) -> Difference:
    place = revisions.Repository.around(repository.store.folder.parent)
    return difference(Revision(place, place.commit("HEAD~1")), Revision(place, place.commit("HEAD")))


class Page(HTMLParser):
    """What a page shows, and whatever it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.urls: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_data(self, data: str) -> None:
        self.words += data.split()


@needs_git
def test_the_headline_counts_by_kind(found: Difference) -> None:
    assert headline(found) == "digits: 4 scenarios changed (1 added, 1 removed, 1 relabelled, 1 edited)"


@needs_git
def test_the_page_is_self_contained_and_shows_the_sheets_that_changed(found: Difference) -> None:
    text = render_html(found)
    page = Page(text)
    assert not {"script", "link", "iframe"} & set(page.tags)
    sheets = [url for url in page.urls if not url.startswith("#")]
    assert all(url.startswith("data:image/png;base64,") for url in sheets)
    # Added, removed and accepted: both sheets. Excluded tiles: held-out before and after, correction as it is now.
    assert len(sheets) == 2 + 2 + 2 + 2
    decoded = {base64.b64decode(url.partition(",")[2]) for url in sheets}
    shown = {path.read_bytes() for path in Path("fixtures").rglob("*.png")}
    assert len(decoded & shown) == 5
    assert "<b>bold" not in text
    assert 'class="out"' in text
    assert "(excluded)" in text


@needs_git
def test_sheets_beyond_the_budget_are_named(found: Difference) -> None:
    text = render_html(found, budget=1)
    assert "data:image" not in text
    assert "Sheets left out to keep this file small" in text


@needs_git
def test_markdown_names_sheets_and_shows_them_if_the_url_is_known(found: Difference) -> None:
    text = render_markdown(found)
    assert text.startswith("## digits: 4 scenarios changed (1 added, 1 removed, 1 relabelled, 1 edited)\n")
    assert "- status candidate -&gt; accepted" in text
    assert "&lt;b&gt;bold \\| new line&lt;/b&gt;" in text
    assert "![" not in text
    shown = render_markdown(found, "https://github.com/me/models/blob/{commit}")
    addresses = re.findall(r"!\[[^]]*\]\(([^)]*)\)", shown)
    assert len(addresses) == 8
    for change in found.changes:
        commit, side = (found.base, change.before) if change.after is None else (found.head, change.after)
        assert side is not None
        place = f"https://github.com/me/models/blob/{commit}/{side.path}/held_out.png?raw=true"
        assert place in addresses
    table = [line for line in shown.splitlines() if line.startswith("| held-out, before")]
    assert table == ["| held-out, before | held-out, after |"]


@needs_git
class TestDiff:
    def test_exit_codes(self, repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["diff", "HEAD"]) == 0
        assert capsys.readouterr().out == "No scenario changed\n"
        assert main(["diff", "HEAD~1", "HEAD"]) == 1
        assert main(["diff", "nowhere"]) == 2
        path = repository.store.scenarios()[0].yaml
        path.write_text(path.read_text().replace("failed: 58", "failed: 99"))
        repository.commit()
        assert main(["diff", "HEAD~1"]) == 2
        assert "failed is 99, but only 64 were drawn" in " ".join(capsys.readouterr().out.split())

    def test_lines_fit_a_terminal(self, repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
        main(["diff", "HEAD~1"])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert any(line.endswith(": relabelled, edited") for line in lines)
        assert "  status candidate -> accepted" in lines

    def test_files_and_the_jobs_summary(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("summary.md").write_text("before\n")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
        monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.example")
        monkeypatch.setenv("GITHUB_REPOSITORY", "me/models")
        assert main(["diff", "HEAD~1", "--markdown", "deep/diff.md", "--html", "diff.html"]) == 1
        text = Path("deep/diff.md").read_text()
        assert "(https://github.example/me/models/blob/" in text
        assert Path("summary.md").read_text() == f"before\n{text}"
        assert Path("diff.html").read_text().startswith("<!DOCTYPE html>")

    def test_json(self, repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
        main(["diff", "HEAD~1", "--json"])
        values = json.loads(capsys.readouterr().out)
        assert (values["changed"], len(values["changes"])) == (True, 4)
        relabelled = next(change for change in values["changes"] if "relabelled" in change["kinds"])
        assert relabelled["before"]["status"] == "candidate"
        assert relabelled["after"] | {"folder": ""} == {"folder": "", "status": "accepted", "label": "3"}

    def test_only_what_a_branch_did(self, repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
        repository.branch("work", "HEAD~1")
        repository.commit()
        assert main(["diff", "main", "work", "--merge-base"]) == 0
        assert main(["diff", "main", "work"]) == 1

    def test_a_file_that_cannot_be_written_is_named(
        self, repository: Repository, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["diff", "HEAD~1", "--html", "pytest.ini/x.html"]) == 2
        assert "cannot be written" in capsys.readouterr().err


def tall_record(gap: int) -> ScenarioRecord:
    """Five tiles of 8 x 16, of which one is excluded, with a gap between neighbours."""
    tiles = random_tiles(5, height=16)
    sheets = record_of(tiles, tiles).sheets.model_dump()
    sheets["correction"]["excluded"] = (3,)
    return record_of(tiles, tiles, proposed_label="5", sheets=sheets, gap=gap)


def test_every_tile_has_its_index_and_class_beneath_it() -> None:
    predicted = ("5", "5", "a long name", "5", "a long name")
    drawn = captioned("name", "url", tall_record(0), "correction", predicted)
    assert [caption.index for caption in drawn.captions] == [0, 1, 2, 3, 4]
    assert [caption.predicted for caption in drawn.captions] == ["5", "5", "a lon…", "5", "a lon…"]
    assert not drawn.one_line
    assert drawn.captions[2].title == "tile 2: predicted a long name"
    assert drawn.captions[3].title == "tile 3: predicted 5 (excluded)"
    assert [caption.wrong for caption in drawn.captions] == [False, False, True, False, True]
    assert [caption.left_out for caption in drawn.captions] == [False, False, False, True, False]
    assert [(caption.left, caption.top) for caption in drawn.captions] == [(0, 0), (8, 0), (16, 0), (0, 16), (8, 16)]
    assert drawn.cell_height == 2 * drawn.cell_width
    unknown = captioned("name", "url", tall_record(0), "correction", None)
    assert [caption.predicted for caption in unknown.captions] == [""] * 5


def test_tiles_with_a_gap_are_found_on_their_sheet() -> None:
    drawn = captioned("name", "url", tall_record(2), "correction", None)
    assert [(caption.left, caption.top) for caption in drawn.captions] == [(0, 0), (10, 0), (20, 0), (0, 18), (10, 18)]
    assert (drawn.sheet_width, drawn.sheet_height) == (28, 34)


def test_small_tiles_are_inlined_exactly_and_large_ones_as_thumbnails() -> None:
    def opened(url: str) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))

    small, large = random_tiles(5, 3), random_tiles(5, 3, width=224, height=112)
    for tiles in (small, large):
        png = encode_sheet(tiles)
        image = opened(inline(png, tile_format(tiles)))
        if tiles is small:
            np.testing.assert_array_equal(np.array(image), np.array(Image.open(io.BytesIO(png))))
        else:
            assert (image.format, image.size) == ("JPEG", (3 * 64, 2 * 32))


def test_a_scenario_of_the_example_can_be_drawn() -> None:
    scenario = Store(Path(__file__).parents[2] / "fixtures" / "digits").scenarios("accepted")[0]
    drawn = captioned("x", "url", scenario.record, "held_out", scenario.machine.held_out.predicted)
    assert drawn.one_line
    wrong = sum(caption.wrong for caption in drawn.captions)
    sheet = scenario.record.sheets.held_out
    assert wrong == sheet.images - (sheet.predicted or {}).get(scenario.record.label or "", 0)
