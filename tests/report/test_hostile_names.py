"""Names that steer terminals, logs, markdown or HTML, in every place that a file can put them, over every output."""

import html
import json
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pytest_defuse.cli import main
from pytest_defuse.report.findings import findings, render_github, render_gitlab
from pytest_defuse.report.html import render_html
from pytest_defuse.report.junit import properties
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results import Results
from pytest_defuse.report.results_file import dump_results, load_results
from pytest_defuse.report.terminal import render
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.store import Store
from tests.review.stores import build_store

HOSTILE = [
    "::error file=x::pwned",
    "\n::error::pwned",
    "\r::set-output name=x::pwned",
    "cat\u2028::warning::pwned",
    "##[error]pwned",
    "\x1b[2J\x1b]0;pwned\x07",
    "\x9b31mpwned",
    "\u202egpj.exe\u2066",
    "\u200f\u061c\u200b\ufeff",
    "@torvalds",
    "fixes #1",
    "see torvalds/linux#1 and GH-1",
    "https://evil.example/?x=1",
    "![x](https://evil.example/x.png)",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "`$(touch pwned)`",
    "| cell |\n\n# heading",
    "\ud800 half",
    "\x00",
    "{{ 7 * 7 }}",
]
"""Each is in turn in every string of the results."""


def planted(value: Any, text: str) -> Any:
    """A value in which every string that can come from a file contains ``text``."""
    if isinstance(value, str):
        return value + text
    if isinstance(value, list | tuple):
        return type(value)(planted(part, text) for part in value)
    if isinstance(value, dict):
        return {planted(key, text): planted(part, text) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        kept = ("outcome", "kind", "role", "figure", "image", "sheet", "flip_sheet", "bound")
        changes = {f.name: planted(getattr(value, f.name), text) for f in fields(value) if f.name not in kept}
        return replace(value, **changes)
    return value


@pytest.fixture(params=HOSTILE, ids=ascii)
def hostile(request: pytest.FixtureRequest, everything: Results) -> Results:
    [explanation] = everything.explanations
    new = [replace(part, facts=["a fact"]) for part in everything.discoveries[0].new]
    whole = replace(
        everything,
        explanations=[replace(explanation, new=new)],
        notices=("no test covers x",),
        failed=("tests/test_x.py::test_y",),
        arguments=("--defuse-store=x",),
        partial="the run was interrupted",
    )
    results: Results = planted(whole, request.param)
    return results


def hidden(text: str, kept: str = "\n\u200c\u200d") -> list[str]:
    """The characters of a text that are not visible."""
    return [c for c in text if c not in kept and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def commands(text: str) -> list[str]:
    """The lines that GitHub's runner takes for workflow commands (actions/runner, ActionCommand)."""
    return [line for line in re.split("\r\n|\n|\r", text) if line.lstrip().startswith("::") or "##[" in line]


@pytest.mark.parametrize("width", [40, 80, 500])
def test_terminal(hostile: Results, tmp_path: Path, width: int) -> None:
    for color in (False, True):
        text = render(hostile, width=width, color=color, start=tmp_path, verbose=True)
        text = re.sub(r"\x1b\[[0-9;]*m", "", text) if color else text
        assert hidden(text) == []
        assert commands(text) == []


def test_markdown(hostile: Results) -> None:
    text = render_markdown(hostile)
    assert hidden(text) == []
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    shown = html.unescape(prose)
    assert not re.search(r"@\w|#\d|GH-\d|://|!\[", shown)
    assert not re.search(r"<(?!/?(details|summary)>)", prose)
    assert not re.search(r"^#+ (?!#)[^\n]*heading", "\n".join(prose.splitlines()[1:]).replace("### ", ""), re.MULTILINE)
    assert "`$" not in prose.replace("\\`", "").replace("\\$", "")


class Page(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_html(hostile: Results) -> None:
    text = render_html(hostile)
    text.encode()
    assert hidden(text) == []
    page = Page(text)
    assert not {"script", "iframe", "object"}.intersection(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert all((value or "").startswith("data:") for name, value in page.attributes if name == "src")


def test_services(hostile: Results, tmp_path: Path) -> None:
    found = findings(hostile, tmp_path)
    lines = render_github(found).split("\n")[:-1]
    assert len(lines) == len(found)
    for line, finding in zip(lines, found, strict=True):
        assert re.fullmatch(r"::(error|warning) file=[^,]*,line=\d+,title=[^:,]*::.*", line)
        assert hidden(line) == hidden(finding.path) == []
    gitlab = render_gitlab(found)
    assert gitlab.isascii()
    assert commands(gitlab) == []
    for issue in json.loads(gitlab):
        assert hidden(issue["description"]) == hidden(issue["location"]["path"]) == []


def test_junit(hostile: Results) -> None:
    for result in hostile:
        for name, value in properties(result):
            assert hidden(name + value, "") == []


def test_results_file(hostile: Results, tmp_path: Path) -> None:
    text = dump_results(hostile, tmp_path)
    assert text.isascii()
    (tmp_path / "results.json").write_text(text)
    loaded = load_results(tmp_path / "results.json", tmp_path)
    assert [verdict.id for verdict in loaded.scenarios] == [verdict.id for verdict in hostile.scenarios]


def test_report_command(hostile: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text(dump_results(hostile, tmp_path))
    assert main(["report", str(tmp_path / "results.json")]) == 0
    out = capsys.readouterr().out
    assert (hidden(out), commands(out)) == ([], [])
    assert main(["report", str(tmp_path / "results.json"), "--annotations"]) == 0
    lines = commands(capsys.readouterr().out)
    assert len(lines) == len(findings(hostile, tmp_path))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_errors(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DefuseError) as raised:
        Store(tmp_path / "digits").get(text)
    assert (hidden(str(raised.value)), commands(str(raised.value))) == ([], [])
    for arguments in (["report", text], ["list", "--defuse-store", f"x{text}"]):
        if "\x00" not in text:
            assert main(arguments) == 2
            error = capsys.readouterr().err
            assert (hidden(error), commands(error)) == ([], [])


class TestStore:
    """Class names, notes and descriptions of a store, over every command and the page."""

    @pytest.fixture(params=[text for text in HOSTILE if "\ud800" not in text and "\x00" not in text], ids=ascii)
    def store(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        monkeypatch.chdir(tmp_path)
        text = request.param
        store = build_store(tmp_path / "fixtures" / "things", [f"{text} {number}" for number in range(4)])
        for scenario in store.scenarios():
            store.update(scenario.id, notes=text, description=text)
            store.vote(scenario.id, "anna@example.com", {"correction": {0: f"{text} 1", 1: None}})
        return store

    @staticmethod
    def each(store: Store) -> Iterator[list[str]]:
        first = store.scenarios()[0].id
        yield from (["list"], ["votes"], ["verify"], ["schema"], ["migrate", "--check"])
        yield ["label", first, "--label", "not a class"]
        yield ["label", first, "--label", f"{store.record().classes[1]}"]
        yield ["votes", "--decide"]
        yield ["export", "label-studio", "out", "--only", first]

    def test_commands(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        for arguments in self.each(store):
            for extra in ([], ["--json"]):
                if arguments[0] == "export":
                    shutil.rmtree("out", ignore_errors=True)
                main([*arguments, *extra])
                for text in capsys.readouterr():
                    assert (hidden(text), commands(text)) == ([], []), arguments

    def test_diff(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        def git(*arguments: str) -> None:
            identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
            subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

        git("init")
        git("commit", "--allow-empty", "-m", "none")
        git("add", ".")
        git("commit", "-m", "store")
        main(["diff", "HEAD~1", "HEAD", "--markdown", "d.md", "--html", "d.html"])
        for text in (*capsys.readouterr(), Path("d.md").read_text(), Path("d.html").read_text()):
            assert (hidden(text), commands(text)) == ([], [])
        assert not re.search(r"@\w|#\d|\bGH-\d|://", html.unescape(Path("d.md").read_text()))
        assert "script" not in Page(Path("d.html").read_text()).tags
        main(["diff", "HEAD~1", "HEAD", "--json"])
        assert (text := capsys.readouterr().out).isascii()
        assert commands(text) == []

    def test_page(self, store: Store) -> None:
        pytest.importorskip("starlette")
        from tests.review.test_page import Page as Browser

        browser, scenario = Browser(store.folder.parent), store.scenarios()[0]
        address = f"/scenarios/things/{scenario.id}"
        for path in ("/", address, f"{address}/votes"):
            text = browser.get(path).text
            assert hidden(text) == []
            assert set(Page(text).tags).isdisjoint({"iframe", "object"})
            assert Page(text).tags.count("script") == 1
            assert not any(name.startswith("on") for name, _ in Page(text).attributes)
        values = [value for name, value in Page(browser.get(address).text).attributes if name == "value" and value]
        [value] = [value for value in values if value.endswith(" 2")]
        before = store.get(scenario.id).record
        notes = re.search(r"<textarea[^>]*>\n(.*)</textarea>", browser.get(address).text, re.DOTALL)
        assert notes
        form = {"label": value, "notes": html.unescape(notes[1])}
        assert browser.submit(address, form).status_code == 303
        after = store.get(scenario.id).record
        assert (after.label, after.notes) == (store.record().classes[2], before.notes)
