import asyncio
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.review.stores import add_candidate, build_store
from tests.scenarios.planting import before_the_next_lock, exclude, with_machine, with_predictions

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from httpx2 import Response
from starlette.testclient import TestClient

from pytest_defuse.review.app import create_app, shortcuts
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.store import Store

HOME = "http://127.0.0.1:8000"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return build_store(tmp_path / "digits")


class Page(TestClient):
    """A browser in which the printed address was opened."""

    def __init__(self, root: Path, annotator: str = "reviewer") -> None:
        super().__init__(create_app(root, "secret", annotator), base_url=HOME, follow_redirects=False)
        assert self.get("/?token=secret").status_code == 200

    def submit(self, address: str, data: dict[str, str], headers: dict[str, str] | None = None) -> Response:
        """Send the form of a page as it is shown now."""
        seen = re.search(r'name="seen" value="([0-9a-f]{64})"', self.get(address).text)
        return self.post(address, data={"seen": seen[1] if seen else "", **data}, headers=headers)


@pytest.fixture
def page(store: Store) -> Page:
    return Page(store.folder.parent)


def addresses(store: Store) -> list[str]:
    return [f"/scenarios/{store.folder.name}/{scenario.id}" for scenario in store.scenarios()]


class Buttons(HTMLParser):
    """The attributes of every button of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "button":
            self.found.append(dict(attrs))


def test_the_list_shows_every_scenario_and_leads_to_the_first_candidate(page: Page, store: Store) -> None:
    store.update(store.scenarios()[0].id, status="accepted", label="4")
    text = page.get("/").text
    assert all(f'<td><a href="{address}">' in text for address in addresses(store))
    assert "2 of 3 are undecided" in text
    assert "accepted as <strong>4</strong>" in text
    assert f'class="button" href="{addresses(store)[1]}"' in text


def test_a_scenario_offers_each_class_and_rejection_but_prefers_none(page: Page, store: Store) -> None:
    text = page.get(addresses(store)[0]).text
    buttons = Buttons(text).found
    assert [button["value"] for button in buttons if button["name"] == "label"] == list("0123456789")
    assert [button["aria-keyshortcuts"] for button in buttons] == [*"0123456789", "r"]
    assert not any("aria-current" in button for button in buttons)
    assert "Proposed: <strong>1</strong>" in text
    assert "Wrong on 58 of 64" in text


def test_the_sheet_is_the_file(page: Page, store: Store) -> None:
    reply = page.get(addresses(store)[0] + "/correction.png")
    assert reply.headers["content-type"] == "image/png"
    assert reply.content == store.scenarios()[0].sheet_file("correction").read_bytes()


def test_a_label_is_written_and_the_next_candidate_shown(page: Page, store: Store) -> None:
    first, _, third = addresses(store)
    store.update(store.scenarios()[1].id, status="rejected")
    reply = page.submit(first, data={"label": "7", "notes": " two lines\r\nof notes \n"})
    assert reply.status_code == 303
    assert reply.headers["location"].startswith(f"{third}?decided=")
    record = store.scenarios()[0].record
    assert (record.status, record.label, record.notes) == ("accepted", "7", "two lines\nof notes")
    text = page.get(reply.headers["location"]).text
    assert f"{record.id} is <span" in text
    assert f'<a href="{first}">change</a>' in text


def test_rejection_after_the_last_goes_round_to_the_first(page: Page, store: Store) -> None:
    first, _, third = addresses(store)
    reply = page.submit(third, data={"reject": "yes"})
    assert reply.headers["location"].startswith(f"{first}?decided=")
    record = store.scenarios()[2].record
    assert (record.status, record.label) == ("rejected", None)


def test_after_the_last_decision_comes_the_list(page: Page, store: Store) -> None:
    for address in addresses(store):
        reply = page.submit(address, data={"label": "1"})
    assert reply.headers["location"].startswith("/?decided=")
    assert "Every scenario is decided" in page.get(reply.headers["location"]).text


def test_a_decision_can_be_changed_and_keeps_the_notes(page: Page, store: Store) -> None:
    first = addresses(store)[0]
    page.submit(first, data={"label": "1", "notes": "clear"})
    text = page.get(first).text
    assert [b["value"] for b in Buttons(text).found if b.get("aria-current")] == ["1"]
    page.submit(first, data={"label": "7"})
    assert (store.scenarios()[0].record.label, store.scenarios()[0].record.notes) == ("7", "clear")


@pytest.mark.parametrize("data", [{"label": "ten"}, {"label": ""}, {}, {"notes": "only this"}])
def test_what_is_no_decision_is_refused(page: Page, store: Store, data: dict[str, str]) -> None:
    before = store.scenarios()
    assert page.submit(addresses(store)[0], data=data).status_code == 400
    assert store.scenarios() == before


@pytest.mark.parametrize(
    "path",
    [
        "/scenarios/digits/9-as-9-000000",
        "/scenarios/other/{id}",
        "/scenarios/digits/..",
        "/scenarios/digits/..%2Fdigits%2F{id}",
        "/scenarios/..%2f..%2f/{id}",
        "/scenarios/digits/{id}/held_out.png",
        "/scenarios/digits/{id}/..%2fscenario.yaml",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/nowhere",
    ],
)
def test_other_paths_are_not_found(page: Page, store: Store, path: str) -> None:
    assert page.get(path.format(id=store.scenarios()[0].id)).status_code == 404


def test_unknown_scenarios_cannot_be_decided_on(page: Page) -> None:
    assert page.submit("/scenarios/digits/9-as-9-000000", data={"label": "1"}).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
def test_other_hosts_are_refused(page: Page, host: str) -> None:
    assert page.get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "LOCALHOST"])
def test_this_machine_is_served(page: Page, host: str) -> None:
    assert page.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:3000",
        "https://127.0.0.1:8000",
        "http://localhost:8000",
    ],
)
def test_decisions_from_another_origin_are_refused(page: Page, store: Store, origin: str) -> None:
    before = store.scenarios()
    reply = page.submit(addresses(store)[0], data={"label": "1"}, headers={"origin": origin})
    assert reply.status_code == 403
    assert store.scenarios() == before


def test_decisions_from_the_page_itself_are_taken(page: Page, store: Store) -> None:
    assert page.submit(addresses(store)[0], data={"label": "1"}, headers={"origin": HOME}).status_code == 303


class TestWhoMayUseThePage:
    def test_nobody_without_the_printed_address(self, store: Store) -> None:
        before = store.scenarios()
        stranger = TestClient(create_app(store.folder.parent, "secret"), base_url=HOME, follow_redirects=False)
        address = addresses(store)[0]
        for path in ("/", address, f"{address}/correction.png", "/static/review.js", "/?token=", "/?token=wrong"):
            assert stranger.get(path).status_code == 403
        assert stranger.post(address, data={"label": "1", "seen": "0" * 64}).status_code == 403
        assert store.scenarios() == before

    def test_the_token_works_once_and_gives_a_strict_cookie(self, store: Store) -> None:
        app = create_app(store.folder.parent, "secret")
        owner, other = (TestClient(app, base_url=HOME) for _ in range(2))
        cookie = owner.get("/?token=secret").headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secret" not in cookie
        assert owner.get("/").status_code == 200
        assert other.get("/?token=secret").status_code == 403
        assert owner.get("/?token=secret").status_code == 200

    def test_two_servers_do_not_share_a_cookie(self, page: Page, store: Store) -> None:
        second = TestClient(create_app(store.folder.parent, "other"), base_url="http://127.0.0.1:9000")
        second.cookies = page.cookies
        second.get("/?token=other")
        assert second.get("/").status_code == 200
        assert page.get("/").status_code == 200

    def test_no_other_site_reads_anything(self, page: Page, store: Store) -> None:
        for path in ("/", addresses(store)[0] + "/correction.png", "/static/review.css", "/nowhere"):
            assert page.get(path).headers["cross-origin-resource-policy"] == "same-origin"

    @pytest.mark.parametrize(
        ("content", "status"),
        [("notes=" + "x" * 2**20, 413), ("&".join(f"n{n}=1" for n in range(100)), 400)],
    )
    def test_a_form_is_limited(self, page: Page, store: Store, content: str, status: int) -> None:
        before = store.scenarios()
        assert page.post(addresses(store)[0], content=content).status_code == status
        assert store.scenarios() == before

    def test_300_megabytes_are_not_read(self, page: Page, store: Store) -> None:
        read = 0

        def chunks() -> Iterator[bytes]:
            nonlocal read
            for _ in range(300):
                read += 1
                yield b"x" * 2**20

        messages = chunks()

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": next(messages, b""), "more_body": True}

        statuses: list[int] = []

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(int(str(message["status"])))

        cookie = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
        scope = {
            "type": "http",
            "method": "POST",
            "path": addresses(store)[0],
            "raw_path": addresses(store)[0].encode(),
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:8000"), (b"cookie", cookie.encode())],
            "scheme": "http",
            "server": ("127.0.0.1", 8000),
            "http_version": "1.1",
            "root_path": "",
        }
        asyncio.run(page.app(scope, receive, send))
        assert statuses == [413]
        assert read <= 2

    def test_a_linked_sheet_is_not_served(self, page: Page, store: Store, tmp_path: Path) -> None:
        sheet = store.scenarios()[0].sheet_file("correction")
        outside = tmp_path.parent / f"{tmp_path.name}-outside.png"
        sheet.rename(outside)
        sheet.symlink_to(outside)
        for path in (addresses(store)[0], addresses(store)[0] + "/correction.png", addresses(store)[0] + "/votes"):
            reply = page.get(path)
            assert reply.status_code == 500
            assert "is a symbolic link" in reply.text

    def test_a_linked_folder_of_votes_is_not_read(self, page: Page, store: Store, tmp_path: Path) -> None:
        store.vote(store.scenarios()[0].id, "anna", {"correction": {0: "1"}})
        votes, outside = store.scenarios()[0].folder / "votes", tmp_path.parent / f"{tmp_path.name}-votes"
        votes.rename(outside)
        votes.symlink_to(outside, target_is_directory=True)
        reply = page.get(addresses(store)[0])
        assert (reply.status_code, "anna" in reply.text) == (500, False)
        assert page.submit(addresses(store)[0] + "/votes", data={"tile": "1", "label": "1"}).status_code != 303
        assert [path.name for path in outside.iterdir()] == ["anna.yaml"]


class TestStalePages:
    """A page that was loaded before scenario.yaml changed."""

    @staticmethod
    def stale(page: Page, address: str) -> str:
        seen = re.search(r'name="seen" value="([0-9a-f]{64})"', page.get(address).text)
        assert seen
        return seen[1]

    @pytest.mark.parametrize("form", [{"label": "7"}, {"reject": "yes"}])
    def test_a_newer_decision_stays_and_both_are_shown(self, page: Page, store: Store, form: dict[str, str]) -> None:
        address, scenario = addresses(store)[0], store.scenarios()[0]
        seen = self.stale(page, address)
        store.update(scenario.id, status="accepted", label="4", notes="the other person's")
        reply = page.post(address, data={**form, "seen": seen, "notes": "my own"})
        assert reply.status_code == 409
        record = store.get(scenario.id).record
        assert (record.status, record.label, record.notes) == ("accepted", "4", "the other person's")
        conflict = reply.text.partition('class="notice conflict"')[2].partition("</div>")[0]
        assert "accepted as <strong>4</strong>" in conflict
        assert ("accepted as <strong>7</strong>" if "label" in form else "rejected") in conflict
        assert "the other person" in conflict
        assert "my own</textarea>" in reply.text
        seen = re.search(r'name="seen" value="([0-9a-f]{64})"', reply.text)[1]
        assert page.post(address, data={**form, "seen": seen, "notes": "my own"}).status_code == 303
        assert store.get(scenario.id).record.notes == "my own"

    @pytest.mark.parametrize("form", [{"label": "7"}, {"by_votes": "yes"}, {"tile": "0", "none": "yes"}])
    def test_a_decision_while_the_form_is_handled_stays(
        self, page: Page, store: Store, form: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address, scenario = addresses(store)[0], store.scenarios()[0]
        with_predictions(scenario)
        store.vote(scenario.id, "anna", {"correction": {0: "1"}})
        seen = self.stale(page, address)
        before_the_next_lock(monkeypatch, lambda: store.update(scenario.id, status="accepted", label="4"))
        reply = page.post(address + "/votes" * ("tile" in form), data={**form, "seen": seen})
        assert reply.status_code == 409
        now = store.get(scenario.id)
        assert (now.record.status, now.record.label, len(now.votes())) == ("accepted", "4", 1)

    def test_votes_do_not_overwrite_it_either(self, page: Page, store: Store) -> None:
        address, scenario = addresses(store)[0], store.scenarios()[0]
        with_predictions(scenario)
        store.vote(scenario.id, "anna", {"correction": {0: "1", 1: "1", 2: "1"}})
        seen = self.stale(page, address)
        store.update(scenario.id, status="rejected")
        assert page.post(address, data={"by_votes": "yes", "seen": seen}).status_code == 409
        assert store.get(scenario.id).record.status == "rejected"

    def test_a_form_that_does_not_say_what_it_showed_decides_nothing(self, page: Page, store: Store) -> None:
        before = store.scenarios()
        assert page.post(addresses(store)[0], data={"label": "1"}).status_code == 409
        assert store.scenarios() == before

    def test_a_vote_on_a_changed_scenario_is_shown_not_written(self, page: Page, store: Store) -> None:
        address, scenario = addresses(store)[0] + "/votes", store.scenarios()[0]
        seen = self.stale(page, address)
        store.update(scenario.id, notes="changed")
        reply = page.post(address, data={"tile": "0", "label": "7", "seen": seen})
        assert reply.status_code == 409
        assert "your vote on tile 0\n(<strong>7</strong>) was not written" in reply.text
        assert store.get(scenario.id).votes() == []


class TestVotes:
    """Voting tile by tile, as in Figure 14 of the Defuse paper."""

    def test_one_tile_is_shown_with_a_button_a_class_and_none_but_no_word_of_the_model(
        self, page: Page, store: Store
    ) -> None:
        text = page.get(addresses(store)[0] + "/votes").text
        buttons = Buttons(text).found
        assert [button["value"] for button in buttons] == [*"0123456789", "yes"]
        assert "tile 0, 1 of 9, voting as reviewer" in text
        assert "Proposed" not in text
        assert "model" not in text
        assert 'viewBox="0 0 8 8"' in text

    def test_votes_are_written_tile_by_tile_until_all_are_there(self, page: Page, store: Store) -> None:
        address = addresses(store)[0] + "/votes"
        for tile in range(9):
            assert f'name="tile" value="{tile}"' in page.get(address).text
            data = {"tile": str(tile)} | ({"none": "yes"} if tile == 4 else {"label": "1"})
            reply = page.submit(address, data=data)
            assert (reply.status_code, reply.headers["location"]) == (303, address)
        assert page.get(address).headers["location"] == addresses(store)[0]
        (votes,) = store.scenarios()[0].votes()
        assert (votes.annotator, votes.kind) == ("reviewer", "human")
        assert votes.correction is not None
        assert votes.correction.by_tile == dict.fromkeys(range(9), "1") | {4: None}

    def test_nobody_is_asked_about_more_than_ten_tiles_nor_about_excluded_ones(self, store: Store) -> None:
        scenario = add_candidate(store, "5", "6", images=16, seed=7)
        exclude(scenario, "correction", 0, 3)
        page = Page(store.folder.parent, "anna")
        address = f"/scenarios/digits/{scenario.id}/votes"
        for tile in (1, 2, *range(4, 12)):
            page.submit(address, data={"tile": str(tile), "label": "5"})
        assert page.get(address).status_code == 303
        assert page.submit(address, data={"tile": "12", "label": "5"}).status_code == 400
        assert page.submit(address, data={"tile": "3", "label": "5"}).status_code == 400

    @pytest.mark.parametrize(
        "data", [{"tile": "0"}, {"tile": "0", "label": "cat"}, {"label": "1"}, {"tile": "x", "none": "1"}]
    )
    def test_what_is_no_vote_is_refused(self, page: Page, store: Store, data: dict[str, str]) -> None:
        assert page.submit(addresses(store)[0] + "/votes", data=data).status_code == 400
        assert store.scenarios()[0].votes() == []

    def test_votes_from_another_origin_are_refused(self, page: Page, store: Store) -> None:
        address = addresses(store)[0] + "/votes"
        reply = page.submit(address, data={"tile": "0", "label": "1"}, headers={"origin": "http://evil.example"})
        assert reply.status_code == 403
        assert store.scenarios()[0].votes() == []

    def test_the_scenario_shows_what_votes_say_and_can_be_decided_by_them(self, page: Page, store: Store) -> None:
        scenario = store.scenarios()[0]
        with_predictions(scenario)
        address = addresses(store)[0]
        assert "Decide by votes" not in page.get(address).text
        assert page.submit(address, data={"by_votes": "yes"}).status_code == 400
        store.vote(scenario.id, "anna", {"correction": {0: "1", 1: "1", 2: None, 3: "1"}})
        text = page.get(address).text
        assert "scenario <strong>1</strong>: the model is wrong on 3 of 3 tiles" in text
        assert "4 tiles by anna, agreement 100%" in text
        assert "none of the above on tile correction 2" in text
        assert page.submit(address, data={"by_votes": "yes", "notes": "as voted"}).status_code == 303
        decided = store.get(scenario.id).record
        assert (decided.status, decided.label, decided.sheets.correction.excluded) == ("accepted", "1", (2,))
        assert decided.notes == "as voted"
        assert 'class="out"' in page.get(address).text

    def test_evidence_stands_beside_the_proposal(self, page: Page, store: Store) -> None:
        evidence = {
            "nearest_images": [1],
            "nearest_labels": ["1"],
            "nearest_distances": [0.5],
            "source_labels": {"1": 7},
        }
        with_machine(store.scenarios()[0], evidence=evidence)
        text = page.get(addresses(store)[0]).text
        assert "1 of the 1 nearest training images are labelled 1" in text
        assert "It is only a proposal" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    classes = ["<b>bold</b>", '"quoted" & more', "plain", "last"]
    store = build_store(tmp_path / "R&D <x>", classes)
    scenario = store.scenarios()[0]
    store.update(scenario.id, notes="</textarea><script>alert(1)</script>")
    page = Page(tmp_path)
    address = f"/scenarios/R%26D%20%3Cx%3E/{scenario.id}"
    assert f'<a href="{address}">' in page.get("/").text
    text = page.get(address).text
    assert [button["value"] for button in Buttons(text).found] == [*classes, "yes"]
    assert "<b>" not in text
    assert "<script>" not in text
    page.submit(address, data={"label": classes[1]})
    assert store.get(scenario.id).record.label == classes[1]


def test_nothing_comes_from_elsewhere(page: Page, store: Store) -> None:
    reply = page.get(addresses(store)[0])
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    for text in (reply.text, page.get("/static/review.css").text, page.get("/static/review.js").text):
        assert "://" not in text


def test_a_sheet_that_is_not_the_recorded_one_is_not_shown_for_labelling(page: Page, store: Store) -> None:
    scenario = store.scenarios()[0]
    scenario.sheet_file("correction").write_bytes(scenario.sheet_file("held_out").read_bytes())
    reply = page.get(addresses(store)[0])
    assert reply.status_code == 500
    assert "holds other pixels" in reply.text


def test_a_file_that_an_editor_broke_is_named_until_it_is_fixed(page: Page, store: Store) -> None:
    path = store.scenarios()[0].yaml
    good = path.read_text()
    path.write_text(good + "colour: red\nsize: 3\n")
    reply = page.get("/")
    assert reply.status_code == 500
    assert reply.text.count("<li>") == 2
    path.write_text(good)
    assert page.get("/").status_code == 200


def test_a_store_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(DefuseError, match="no scenario store"):
        create_app(tmp_path, "secret")


def test_an_unusual_sheet_is_shown(page: Page, store: Store) -> None:
    scenario = add_candidate(store, "5", "6", images=1, seed=7)
    assert 'width="1024"' in page.get(f"/scenarios/digits/{scenario.id}").text


@pytest.mark.parametrize(
    ("classes", "keys"),
    [
        ("0123456789", "0123456789"),
        ("731", "731"),
        (["cat", "dog"], "12"),
        ([f"class {n}" for n in range(10)], "1234567890"),
        ([f"class {n}" for n in range(11)], ""),
        (["1", "10"], "12"),
    ],
)
def test_shortcuts(classes: list[str], keys: str) -> None:
    assert shortcuts(list(classes)) == list(keys)
