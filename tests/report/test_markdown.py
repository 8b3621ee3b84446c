"""What a pull request or a CI service shows."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.discover.results import CandidateResult, DiscoveryResult
from pytest_defuse.explain.results import ExplanationResult
from pytest_defuse.gate.checks import Comparison
from pytest_defuse.gate.results import ScenarioResult, TestSetResult
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results import Results


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, heading first; GitHub splits a row at every | that is not escaped."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    return [[[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block] for block in blocks]


def test_the_heading_counts_outcomes(everything: Results) -> None:
    heading = render_markdown(everything).splitlines()[0]
    assert heading == (
        "## digits: 3 scenarios (1 FAIL, 1 INCONCLUSIVE, 1 PASS), "
        "97.4% on the test set, corrected, 1 new candidate, 1 failure mode"
    )


def test_scenarios(scenario: Callable[..., ScenarioResult]) -> None:
    (table,) = tables(render_markdown(Results(scenarios=[scenario()])))
    assert table[0] == ["scenario", "label", "accuracy", "95% interval", "bound", "verdict"]
    assert table[2] == ["3-as-5-a1b2c3", "3", "240/256 = 93.8%", "90.1% - 96.1%", "90.0%", "PASS"]


def test_scenarios_of_a_correction_show_before_and_after(scenario: Callable[..., ScenarioResult]) -> None:
    (table,) = tables(render_markdown(Results(scenarios=[scenario(correct_before=64)])))
    assert table[0][2:4] == ["before", "after"]
    assert table[2][2:4] == ["25.0%", "240/256 = 93.8%"]


def test_test_set(tested: TestSetResult) -> None:
    text = render_markdown(Results(test_sets=[tested]))
    assert "- Test set of digits: 974/1000 = 97.4% (95% interval 96.2% - 98.2%)" in text


def test_candidates_come_with_the_commands_that_label_them(
    discovery: Callable[..., DiscoveryResult], candidate: Callable[..., CandidateResult], tmp_path: Path
) -> None:
    result = discovery(new=[candidate(), candidate("8-as-3-abcdef", proposed_label="emergency car")])
    text = render_markdown(Results(discoveries=[result]), tmp_path)
    assert "\n    pytest-defuse label 9-as-4-d4e5f6 --label 9\n" in text
    assert "\n    pytest-defuse label 8-as-3-abcdef --label 'emergency car'\n" in text
    # As pytest-defuse diff shows a scenario that was added.
    assert "### digits/9-as-4-d4e5f6: added\n\n- candidate, proposed label 9\n- 410/512 of fresh draws failed\n" in text


def test_correction(correction: Callable[..., CorrectionResult], tmp_path: Path) -> None:
    text = render_markdown(Results(corrections=[correction()]), tmp_path)
    (table,) = tables(text)
    assert [row[0] for row in table[2:]] == ["before", "0 (control)", "1 (chosen)"]
    assert "- Every bound passes: wrote digits.defused.safetensors" in text


def test_correction_that_misses_lists_the_bounds(correction: Callable[..., CorrectionResult], tmp_path: Path) -> None:
    text = render_markdown(Results(corrections=[correction(problems=["too bad", "worse"])]), tmp_path)
    assert "## digits: not corrected" in text
    assert "- Too bad\n- Worse\n- Not every bound passes" in text


def test_failure_modes(everything: Results) -> None:
    modes = tables(render_markdown(everything))[-1]
    rates = ["40.0%", "28.0% - 53.0%", "+35.6", "4.4%", "63.0%", "55"]
    assert modes[2] == ["label 9", "feature 12 &gt; 0.31", *rates]


def test_an_explanation_counts_groups_with_too_few_failures(explanation: ExplanationResult) -> None:
    text = render_markdown(Results(explanations=[explanation]))
    assert "- Failure modes of digits: 1 in 14 groups; 6 groups with too few failures" in text
    assert "3f2a91c0de12" in text


@pytest.mark.parametrize("label", ["<b>|x", "a\\|b", "x\ny", "[x](http://y)", "`|`"])
def test_class_names_break_neither_table_nor_page(scenario: Callable[..., ScenarioResult], label: str) -> None:
    text = render_markdown(Results(scenarios=[scenario(label=label)]))
    (table,) = tables(text)
    assert {len(row) for row in table} == {6}
    assert "<b>" not in text
    assert "](" not in text.replace("\\](", "")


def test_a_class_name_is_shown_as_it_is(scenario: Callable[..., ScenarioResult]) -> None:
    text = render_markdown(Results(scenarios=[scenario(label="<b>|x")]))
    assert "| &lt;b&gt;\\|x |" in text


def test_no_class_name_ends_the_block_of_commands(
    discovery: Callable[..., DiscoveryResult], candidate: Callable[..., CandidateResult], tmp_path: Path
) -> None:
    result = discovery(new=[candidate(proposed_label="\n```\n<script>")])
    text = render_markdown(Results(discoveries=[result]), tmp_path)
    assert all(line.startswith("    ") for line in text.splitlines() if "<script>" in line or "```" in line)


def test_a_comparison_and_its_flips(
    scenario: Callable[..., ScenarioResult], compare: Callable[..., Comparison]
) -> None:
    changed = scenario(comparison=compare(256, lost=[250]))
    text = render_markdown(Results(scenarios=[changed]))
    assert "| 3-as-5-a1b2c3 | 1 | 0 | 256 | 1.000 | 1.000 |" in text
    assert "<details><summary>1 flip, correct in the baseline and wrong now</summary>" in text
    assert "| 3-as-5-a1b2c3 | 250 | 3 | 5 |  |" in text


def test_a_scenario_that_does_not_pass_comes_with_its_command(scenario: Callable[..., ScenarioResult]) -> None:
    text = render_markdown(Results(scenarios=[scenario(), scenario("8-as-0-b7c8d9", 3)]))
    assert "    pytest -k 8-as-0-b7c8d9\n" in text
    assert "pytest -k 3-as-5-a1b2c3" not in text


def test_a_summary_with_many_flips_fits_into_a_comment(
    scenario: Callable[..., ScenarioResult], compare: Callable[..., Comparison]
) -> None:
    many = [scenario(f"{n}-as-5-a1b2c3", comparison=compare(256, lost=range(256))) for n in range(20)]
    assert len(render_markdown(Results(scenarios=many))) < 65_536
