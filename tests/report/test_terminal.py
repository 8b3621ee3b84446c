"""What the terminal shows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.discover.results import DiscoveryResult
from pytest_defuse.gate.checks import Check, Comparison
from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.report.results import Results
from pytest_defuse.report.terminal import render


def plain(results: Results, start: Path, width: int = 80) -> str:
    return render(results, width=width, color=False, start=start)


def check(bound: str, measured: float, limit: float, interval: tuple[float, float], outcome: Any, **more: Any) -> Check:
    """A bound on 256 images; the other values do not matter here."""
    values = {"group": "", "images": 256, "accuracy": 0.9, "confidence": 0.95, "reason": bound}
    return Check(bound=bound, measured=measured, limit=limit, interval=interval, outcome=outcome, **(values | more))


def words(text: str) -> str:
    """Text without the line breaks that its width asked for."""
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
    assert re.search(r"3-as-5-a1b2c3 +3 +240/256 = 93\.8% +90\.1% - 96\.1% +90\.0% +holds", text)


@pytest.mark.parametrize(
    ("outcome", "verdict"), [("holds", "holds"), ("fails", "FAILS"), ("unsure", "too few images to tell")]
)
def test_verdict_words(scenario: Callable[..., ScenarioResult], tmp_path: Path, outcome: str, verdict: str) -> None:
    text = plain(Results(scenarios=[scenario(outcome=outcome)]), tmp_path, width=120)
    assert text.rstrip().endswith(verdict)


def test_a_short_id_is_not_broken_beside_a_correction(everything: Results, tmp_path: Path) -> None:
    text = plain(everything, tmp_path)
    assert all(result.id in text for result in everything.scenarios)
    assert "before" in text
    assert "after" in text


def test_a_long_id_loses_nothing(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    text = plain(Results(scenarios=[scenario("automobile-as-emergency-truck-a1b2c3", before=9)]), tmp_path)
    assert "".join(line.split(" ")[0] for line in text.splitlines()[3:]) == "automobile-as-emergency-truck-a1b2c3"
    assert "240/256 = 93.8%  90.1% - 96.1%  90.0%" in text


def test_intervals_of_different_confidence_say_theirs(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    results = Results(scenarios=[scenario(), scenario("7-as-1-000000", confidence=0.999)])
    text = plain(results, tmp_path, width=120)
    assert "(at 95%)" in text
    assert "(at 99.9%)" in text
    assert "95% interval" not in text


def test_a_scenario_without_tiles(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    empty = scenario(correct=0, total=0, predicted=[], before=0, outcome="unsure")
    assert "0/0" in plain(Results(scenarios=[empty]), tmp_path)


def test_class_names_are_not_markup(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    for label in ("[b]x", "[/b]", ":dog:"):
        assert label in plain(Results(scenarios=[scenario(label=label)]), tmp_path, width=120)


def test_discovery_says_how_to_label(discovery: Callable[..., DiscoveryResult], store: Path, tmp_path: Path) -> None:
    text = words(plain(Results(discoveries=[discovery()]), tmp_path))
    assert "1,234 failures, 9 regions, 2 confirmed" in text
    assert f"look at {Path('fixtures', 'digits', '*', 'held_out.png')}" in text
    assert "pytest-defuse label ID --label NAME" in text
    assert "known already: 7-as-1-0a0b0c" in text


def test_discovery_that_finds_nothing(discovery: Callable[..., DiscoveryResult], tmp_path: Path) -> None:
    text = plain(Results(discoveries=[discovery(new=[], known=[])]), tmp_path)
    assert "nothing to label" in text
    assert "pytest-defuse label" not in text


def test_correction_that_holds(correction: Callable[..., CorrectionResult], tmp_path: Path) -> None:
    text = plain(Results(corrections=[correction()]), tmp_path)
    assert "0 (control)" in text
    assert "1 (chosen)" in text
    assert "shift set scanned: 91.0% before, 90.5% after" in text
    assert text.endswith("every bound holds: wrote digits.defused.safetensors\n")


def test_correction_that_misses(correction: Callable[..., CorrectionResult], tmp_path: Path) -> None:
    missed = correction(problems=["nearest miss: x"], output=str(tmp_path / "digits.failed-attempt.safetensors"))
    text = words(plain(Results(corrections=[missed]), tmp_path))
    assert "nearest miss: x not every bound holds: nothing was overwritten" in text
    assert text.endswith("digits.failed-attempt.safetensors")


def test_a_comparison_counts_flips(
    scenario: Callable[..., ScenarioResult], compare: Callable[..., Comparison], tmp_path: Path
) -> None:
    changed = scenario(comparison=compare(256, lost=[250, 251], gained=[3], adjusted_p=0.9))
    same = scenario("7-as-1-000000", comparison=compare(256, same_model=True))
    text = words(plain(Results(scenarios=[changed, same]), tmp_path))
    assert "3-as-5-a1b2c3 2 1 256 1.000 0.900" in text
    assert "the baseline is of this very model" in text
    assert "no answer changed on 1 of 2 sets of images" in text


def test_verbose_tells_every_bound_and_flip_and_how_to_measure_again(
    scenario: Callable[..., ScenarioResult], compare: Callable[..., Comparison], tmp_path: Path
) -> None:
    checks = [
        check("min_accuracy", 0.39, 0.9, (0.33, 0.45), "fails", p=0.0002, adjusted_p=0.0004),
        check("max_flips", 2, 5, (0, 7), "holds", group="3"),
    ]
    failing = scenario(
        correct=100,
        checks=checks,
        tiles=list(range(256)),
        confidences=[0.9] * 256,
        comparison=compare(256, lost=[250]),
    )
    results = Results(scenarios=[failing], arguments=("--defuse-baseline=main branch.json",))
    text = words(render(results, width=80, color=False, start=tmp_path, verbose=True))
    assert (
        "3-as-5-a1b2c3: min_accuracy 39.0% (33.0% - 45.0%) on 256 images, limit 90.0%, adjusted p <0.001: FAILS" in text
    )
    assert "3-as-5-a1b2c3, class 3: max_flips 2 (0 - 7) on 256 images, limit 5: holds" in text
    assert "3-as-5-a1b2c3 250 3 5 90%" in text
    assert "again: pytest '--defuse-baseline=main branch.json' -k 3-as-5-a1b2c3" in text


def test_a_bound_on_flips_is_no_accuracy(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    checks = [check("max_flips", 7, 3, (2, 13), "fails")]
    flipped = scenario(outcome="fails", bound=0.0, reason="max_flips", checks=checks)
    assert re.search(r"240/256 = 93\.8% .* 3 flips +FAILS", plain(Results(scenarios=[flipped]), tmp_path))


def test_how_many_images_would_tell(scenario: Callable[..., ScenarioResult], tmp_path: Path) -> None:
    undecided = check("min_accuracy", 0.89, 0.9, (0.85, 0.93), "unsure", p=0.5, adjusted_p=0.5, enough=4100)
    text = plain(Results(scenarios=[scenario(outcome="unsure", checks=[undecided])]), tmp_path, width=140)
    assert "too few images to tell: about 4,100 would do" in text
