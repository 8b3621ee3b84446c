"""A correction's tables and figures."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_defuse.correct.audit import SetScore
from pytest_defuse.correct.harm import ClassDrop
from pytest_defuse.correct.results import CorrectionResult, FlipResult, TrialResult
from pytest_defuse.report.correction import correction_notes, tradeoff_mermaid
from pytest_defuse.report.html import render_html
from pytest_defuse.report.results import Results
from pytest_defuse.report.tables import correction_tables


@pytest.fixture
def whole(correction: Callable[..., CorrectionResult]) -> CorrectionResult:
    """A correction with every field set."""
    return correction(
        trials=[
            TrialResult(0.3, 0.972, 0.93, 0.96, 3e-4, 3, 1.0, 0.95),
            TrialResult(0.0, 0.974, 0.25, 0.38, 3e-4, 3, 1.0, 0.951, "control"),
            TrialResult(0.3, 0.973, 0.92, 0.95, 3e-4, 3, 0.7, 0.952, "chosen"),
        ],
        sets=[
            SetScore("test set", "test set", 1000, 970, 972, 974),
            SetScore("blur", "shifted copy", 1000, 960, 965, 961),
        ],
        classes=[ClassDrop("9", 100, 4, 1), ClassDrop("3", 100, 0, 2)],
        lost=4,
        gained=8,
        flips=[FlipResult("lost", 17, "9", "9", "<4>", "iVBORw0KGgo=")],
        notes=["no other region was confirmed"],
        image_passes=120_000,
    )


def drawn(result: CorrectionResult) -> ET.Element:
    """The trade-off of the HTML page."""
    match = re.search(r'<svg class="tradeoff".*?</svg>', render_html(Results(corrections=[result])), re.DOTALL)
    assert match is not None
    return ET.fromstring(match[0])


def test_the_control_stands_beside_the_corrected_model(whole: CorrectionResult) -> None:
    trials, sets, classes = correction_tables(whole)
    assert [row.cells[0] for row in trials.rows] == ["before", "0.3", "0 (control)", "0.3 (chosen)"]
    assert sets.rows[1].cells == ("blur", "shifted copy", "1000", "96.0%", "96.5%", "96.1%", "+0.1", "-0.4")
    assert [row.cells for row in classes.rows] == [("9", "100", "4", "1", "3.0%")]


def test_the_notes_name_what_chose_the_trial(whole: CorrectionResult) -> None:
    notes = "\n".join(correction_notes(whole))
    assert "evaluated once, afterwards" in notes
    assert "correct and are wrong: 4; the reverse: 8" in notes
    assert "no other region was confirmed" in notes


def test_the_tradeoff_has_a_point_a_trial(whole: CorrectionResult) -> None:
    figure = drawn(whole)
    names = [text.text for text in figure.iter("title")]
    assert {"before", "0", "0.3", "0.3 at 0.7"} == set(names)
    assert len(list(figure.iter("circle"))) == 4
    for circle in figure.iter("circle"):
        assert 0 <= float(circle.attrib["cx"]) <= 460
        assert 0 <= float(circle.attrib["cy"]) <= 300
    assert '["before", "0", "0.3 at 0.7", "0.3"]' in tradeoff_mermaid(whole)


def test_names_do_not_run_into_each_other(whole: CorrectionResult) -> None:
    chosen = TrialResult(0.3, 0.973, 0.92, 0.95, 3e-4, 3, 0.7, 0.952, "chosen")
    crowd = [replace(chosen, alpha=alpha, role="") for alpha in (0.5, 0.85, 1.0)]
    figure = drawn(replace(whole, trials=[*crowd, chosen]))
    assert len(list(figure.iter("circle"))) == 5
    assert [text.text for text in figure.iter("text") if (text.text or "").startswith("0.3")] == ["0.3 at 0.7"]


def test_a_correction_of_equal_trials_can_be_drawn(whole: CorrectionResult) -> None:
    same = TrialResult(0.0, 1.0, 1.0, 1.0)
    drawn(replace(whole, before=same, trials=[same]))


def test_flips_are_shown_with_their_images(whole: CorrectionResult) -> None:
    page = render_html(Results(corrections=[whole]))
    assert "data:image/png;base64,iVBORw0KGgo=" in page
    assert "lost: label 9, predicted 9 → &lt;4&gt;" in page
