"""What the terminal shows."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from pytest_defuse.correct.audit import SetScore
from pytest_defuse.correct.harm import ClassDrop
from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.discover.results import DiscoveryResult
from pytest_defuse.gate.checks import Comparison
from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.report.results import Results
from pytest_defuse.report.terminal import render
from tests.report.conftest import check


def plain(results: Results, start: Path, width: int = 80) -> str:
    return render(results, width=width, color=False, start=start)


def words(text: str) -> str:
    """Text without the line breaks of its width."""
    return " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_keep_to_the_width(everything: Results, tmp_path: Path, width: int) -> None:
    assert max(map(len, plain(everything, tmp_path, width).splitlines())) <= width


def test_escape_codes_only_with_color(everything: Results, tmp_path: Path) -> None:
    assert "\x1b" not in plain(everything, tmp_path)
    colored = render(everything, width=80, color=True, start=tmp_path)
    assert "\x1b[31m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain(everything, tmp_path)


def test_a_verdict_says_how_sure_it_is(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    text = plain(Results(scenarios=[scenario()]), tmp_path)
    assert re.search(r"3-as-5-a1b2c3 +3 +240/256 = 93\.8% +90\.1% - 96\.1% +90\.0% +PASS", text)


@pytest.mark.parametrize("outcome", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_outcomes(scenario: Callable[..., ScenarioResult], tmp_path: Path, outcome: str) -> None:
    text = plain(Results(scenarios=[scenario(outcome=outcome)]), tmp_path, width=120)
    assert text.rstrip().endswith(outcome)


def test_a_short_id_is_not_broken_beside_a_correction(everything: Results, tmp_path: Path) -> None:
    text = plain(everything, tmp_path)
    assert all(result.id in text for result in everything.scenarios)
    assert "before" in text
    assert "after" in text


def test_a_long_id_loses_nothing(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    text = plain(Results(scenarios=[scenario("automobile-as-emergency-truck-a1b2c3", correct_before=9)]), tmp_path)
    assert "automobile-as-emergency-truck-a1b2c3" in text
    assert re.search(r"240/256 = 93\.8%.*90\.1% - 96\.1%.*90\.0%", text.replace("\n", " "))


def test_intervals_of_different_confidence_say_theirs(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    results = Results(scenarios=[scenario(), scenario("7-as-1-000000", confidence=0.999)])
    text = plain(results, tmp_path, width=120)
    assert "(at 95%)" in text
    assert "(at 99.9%)" in text
    assert "95% interval" not in text


def test_a_scenario_without_tiles(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    empty = scenario(correct=0, total=0, correct_before=0, outcome="INCONCLUSIVE")
    assert "0/0" in plain(Results(scenarios=[empty]), tmp_path)


def test_class_names_are_not_markup(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    for label in ("[b]x", "[/b]", ":dog:"):
        assert label in plain(Results(scenarios=[scenario(label=label)]), tmp_path, width=120)


def test_discovery_says_how_to_label(discovery: Callable[..., DiscoveryResult], store: Path, tmp_path: Path) -> None:
    text = words(plain(Results(discoveries=[discovery()]), tmp_path))
    assert "1,234 failures, 9 regions, 2 confirmed: 1 written, 1 known from the store, 0 left out" in text
    assert "the generator uses 14 of its 16 latent dimensions" in text
    assert "forward passes, one per image: 61,000 of the model, 120,500 of the judges" in text
    assert f"look at {Path('fixtures', 'digits', '*', 'held_out.png')}" in text
    assert "pytest-defuse label ID --label NAME" in text
    assert "already in the store: 7-as-1-0a0b0c" in text


def test_regions_that_are_left_out_are_counted_and_named(
    discovery: Callable[..., DiscoveryResult], tmp_path: Path
) -> None:
    left_out = [
        "4 as 9 (230 of 256 draws fail): beyond the maximum",
        "1 as 7 (200 of 256 draws fail): beyond the budget",
    ]
    text = words(plain(Results(discoveries=[discovery(confirmed=5, regions=45, left_out=left_out)]), tmp_path))
    assert "45 regions, 5 confirmed: 1 written, 2 known from the store, 2 left out" in text
    for sentence in left_out:
        assert f"left out: {sentence}" in text


def test_discovery_that_finds_nothing(discovery: Callable[..., DiscoveryResult], tmp_path: Path) -> None:
    text = plain(Results(discoveries=[discovery(new=[], known=[])]), tmp_path)
    assert "nothing to label" in text
    assert "pytest-defuse label" not in text


def test_discovery_of_an_older_version_has_no_latent_dimensions(
    discovery: Callable[..., DiscoveryResult], tmp_path: Path
) -> None:
    assert "latent" not in plain(Results(discoveries=[discovery(active_dimensions=0, latent_dim=0)]), tmp_path)


def test_correction_that_passes(correction: Callable[..., CorrectionResult], tmp_path: Path) -> None:
    text = plain(Results(corrections=[correction()]), tmp_path)
    assert "0 (control)" in text
    assert "1 (chosen)" in text
    assert text.endswith("every bound passes: wrote digits.defused.safetensors\n")


def test_correction_that_misses(correction: Callable[..., CorrectionResult], tmp_path: Path) -> None:
    missed = correction(problems=["nearest miss: x"], output=str(tmp_path / "digits.failed-attempt.safetensors"))
    text = words(plain(Results(corrections=[missed]), tmp_path))
    assert "nearest miss: x not every bound passes: nothing was overwritten" in text
    assert text.endswith("digits.failed-attempt.safetensors")


def test_a_comparison_counts_flips(
    scenario: Callable[..., ScenarioResult], compare: Callable[..., Comparison], tmp_path: Path
) -> None:
    changed = scenario(comparison=compare(256, lost=[250, 251], gained=[3]))
    unchanged = scenario("7-as-1-000000", comparison=compare(256))
    same = replace(unchanged, predictions=replace(unchanged.predictions, same_model=True))
    text = words(plain(Results(scenarios=[changed, same]), tmp_path))
    assert "3-as-5-a1b2c3 2 1 256 1.000 1.000" in text
    assert "the baseline is from the same model" in text
    assert "no prediction changed on 1 of 2 sets of images" in text


def test_verbose_shows_every_bound_and_flip_and_the_command_that_repeats_the_test(
    scenario: Callable[..., ScenarioResult], compare: Callable[..., Comparison], tmp_path: Path
) -> None:
    checks = (
        check("FAIL", measured=0.39, interval=(0.33, 0.45), p=0.0002),
        check("PASS", bound="max_flips", measured=2, limit=5, interval=(0, 7), group="3"),
    )
    failing = scenario(correct=100, checks=checks, confidences=[0.9] * 256, comparison=compare(256, lost=[250]))
    results = Results(scenarios=[failing], arguments=("--defuse-baseline=main branch.json",))
    text = words(render(results, width=80, color=False, start=tmp_path, verbose=True))
    assert "3-as-5-a1b2c3: min_accuracy 39.0% (33.0% - 45.0%) on 256 images, limit 90.0%, p <0.001: FAIL" in text
    assert "3-as-5-a1b2c3, class 3: max_flips 2 (0 - 7) on 256 images, limit 5: PASS" in text
    assert "3-as-5-a1b2c3 250 3 5 90%" in text
    assert "repeat: pytest '--defuse-baseline=main branch.json' -k 3-as-5-a1b2c3" in text


def test_a_bound_on_flips_is_no_accuracy(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    flips = check("FAIL", bound="max_flips", measured=7, limit=3, interval=(2, 13), accuracy=0.0, reason="max_flips")
    text = plain(Results(scenarios=[scenario(checks=(flips,))]), tmp_path)
    assert re.search(r"240/256 = 93\.8% .* 3 flips +FAIL", text)


def test_how_many_images_would_decide(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    undecided = check("INCONCLUSIVE", measured=0.89, interval=(0.85, 0.93), p=0.5, images_needed=4100)
    text = plain(Results(scenarios=[scenario(checks=(undecided,))]), tmp_path, width=140)
    assert "INCONCLUSIVE: needs about 4,100 images" in text


@pytest.fixture
def wordy(everything: Results, compare: Callable[..., Comparison]) -> Results:
    """Every table, with long names, wide letters and long verdicts."""
    first, *others = everything.scenarios
    first = replace(first, predictions=replace(first.predictions, confidences=(0.9,) * 256))
    undecided = check("INCONCLUSIVE", measured=0.89, p=0.5, images_needed=4100)
    long = replace(first, id="automobile-as-emergency-truck-a1b2c3", label="emergency vehicle 救急車 of a kind")
    changed = replace(long, checks=(undecided, check("FAIL", group="emergency vehicle")), confidence=0.99)
    lost = replace(changed, comparison=compare(256, lost=[250], gained=[3]))
    [correction] = everything.corrections
    sets = [SetScore("shift set scanned at the other clinic", "held out", 1000, 900, 910, 930)]
    drops = [ClassDrop("emergency vehicle 救急車", 100, 9, 1)]
    return replace(
        everything,
        scenarios=[lost, *others],
        corrections=[replace(correction, sets=sets, classes=drops)],
        notices=("no test covers automobile-as-emergency-truck-a1b2c3: use defuse_scenario in a test",),
    )


@pytest.mark.parametrize("width", [80, 40, 20])
def test_no_word_is_cut_or_broken(wordy: Results, tmp_path: Path, width: int) -> None:
    def all_words(columns: int) -> set[str]:
        text = render(wordy, width=columns, color=False, start=tmp_path, verbose=True)
        # A table that does not fit is one paragraph per row, in which a title has a colon and a cell a semicolon.
        return {word.strip(":;") for word in text.split() if not set(word) <= set("─-")}

    assert all_words(1000) <= all_words(width)


@pytest.mark.parametrize("width", [80, 40])
def test_only_one_long_word_exceeds_the_width(wordy: Results, tmp_path: Path, width: int) -> None:
    for line in render(wordy, width=width, color=False, start=tmp_path, verbose=True).splitlines():
        assert cell_len(line.rstrip()) <= width or len(line.split()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1", "utf-8", None])
@pytest.mark.parametrize("color", [True, False])
def test_any_terminal_can_show_it(wordy: Results, tmp_path: Path, encoding: str | None, color: bool) -> None:
    text = render(wordy, width=80, color=color, start=tmp_path, verbose=True, encoding=encoding)
    assert text.encode(encoding or "ascii").decode(encoding or "ascii") == text
    assert "─" in text or encoding != "utf-8"
    assert r"\u6551" in text or encoding == "utf-8"
    assert r"\u2500" not in text
