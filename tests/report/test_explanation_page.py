"""The trees of an explanation on the page."""

import re
from dataclasses import replace
from html.parser import HTMLParser

from pytest_defuse.explain.results import ExplanationResult
from pytest_defuse.report.html import render_html
from pytest_defuse.report.results import Results


class Outline(HTMLParser):
    """How deep each summary lies inside details."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.depth = 0
        self.found: list[tuple[int, str]] = []
        self.reading = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.depth += tag == "details"
        if tag == "summary":
            self.reading = True
            self.found.append((self.depth, ""))

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "details"
        self.reading = self.reading and tag != "summary"

    def handle_data(self, data: str) -> None:
        if self.reading:
            depth, text = self.found[-1]
            self.found[-1] = (depth, f"{text} {data}".strip())


def test_a_tree_opens_node_by_node_without_a_script(explanation: ExplanationResult) -> None:
    page = render_html(Results(explanations=[explanation]))
    outline = [(depth, " ".join(text.split())) for depth, text in Outline(page).found]
    assert outline == [
        (1, "all images 35/800 = 4.4% fail"),
        (2, "feature 12 <= 0.31 13/745 = 1.7% fail"),
        (2, "feature 12 > 0.31 22/55 = 40.0% fail failure mode"),
    ]
    assert "<script" not in page
    assert len(re.findall(r'<img src="data:image/png;base64,iVBOR', page)) == 2
    assert "ALER) 26.0%, 95% interval 17.0% - 35.0%" in page


def test_names_that_people_gave_are_text_not_markup(explanation: ExplanationResult) -> None:
    root = explanation.trees[0].root
    named = replace(root.children[1], condition="feature 12 '<b>dark</b>' > 0.31")
    tree = replace(explanation.trees[0], root=replace(root, children=[named]))
    page = render_html(Results(explanations=[replace(explanation, trees=[tree])]))
    assert "&lt;b&gt;dark" in page
    assert "<b>dark" not in page
