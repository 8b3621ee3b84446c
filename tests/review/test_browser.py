"""The page in a real browser: keys, buttons, and buttons without JavaScript."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_defuse.scenarios.store import Store
from tests.review.stores import build_store

pytest.importorskip("uvicorn")
sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium"),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return build_store(tmp_path / "fixtures" / "things", ["cat", "dog", "horse", "none"])


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    """Where ``pytest-defuse review`` serves the store; Ctrl-C must end it well."""
    program = "import sys; from pytest_defuse.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", program, "review", "--no-browser"],
        cwd=store.folder.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", server.stdout.readline())
        assert found
        yield found[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def decisions(store: Store) -> list[tuple[str, str | None]]:
    return [(scenario.record.status, scenario.record.label) for scenario in store.scenarios()]


def test_labelling_with_buttons_and_keys(store: Store, address: str, browser: "sync_api.Browser") -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    first, second, third = (scenario.id for scenario in store.scenarios())

    page.goto(address)
    home = address.partition("?")[0]
    page.wait_for_url(home)
    assert [cookie["sameSite"] for cookie in page.context.cookies()] == ["Strict"]
    page.get_by_role("link", name="Review candidates").click()
    sheet = page.get_by_role("img", name="Contact sheet of 9 images")
    sync_api.expect(sheet).to_have_js_property("naturalWidth", 24)  # waits until the image has loaded
    assert sheet.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"

    page.get_by_label("Notes").fill("r and 2 are text here")
    page.get_by_role("group", name="What do the images show?").get_by_role("button", name="horse").click()
    page.wait_for_url(f"**/{second}?**")
    assert page.get_by_role("status").inner_text().startswith(f"{first} is accepted as horse")
    assert decisions(store) == [("accepted", "horse"), ("candidate", None), ("candidate", None)]
    assert store.get(first).record.notes == "r and 2 are text here"
    assert 'label: "horse"' in store.get(first).yaml.read_text()

    page.keyboard.press("n")
    page.wait_for_url(f"**/{third}")
    page.keyboard.press("p")
    page.wait_for_url(f"**/{second}")
    page.keyboard.press("2")
    page.wait_for_url(f"**/{third}?**")
    page.keyboard.press("r")
    page.wait_for_url(f"{home}?decided=**")
    assert decisions(store) == [("accepted", "horse"), ("accepted", "dog"), ("rejected", None)]
    assert errors == []


def test_the_address_opens_one_browser(store: Store, address: str, browser: "sync_api.Browser") -> None:
    first, second = (browser.new_context().new_page() for _ in range(2))
    first.goto("about:blank")
    first.set_content(f'<a href="{address}">from another site</a>')
    first.get_by_role("link").click()
    first.get_by_role("link", name="Review candidates").wait_for()
    reply = second.goto(address)
    assert reply is not None
    assert reply.status == 403
    assert decisions(store) == [("candidate", None)] * 3


def test_labelling_without_javascript(store: Store, address: str, browser: "sync_api.Browser") -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address)
    page.get_by_role("link", name=store.scenarios()[2].id).click()
    sync_api.expect(page.locator("kbd").first).to_be_hidden()
    page.get_by_role("button", name="None of the above").click()
    page.wait_for_url("**?decided=**")
    assert decisions(store) == [("candidate", None), ("candidate", None), ("rejected", None)]
