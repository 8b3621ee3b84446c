"""Which corrections are written: a table of counts."""

import pytest

from pytest_defuse.correct.judgement import Judgement, ScenarioCounts, judge_scenario, outcome_of, problems_of


@pytest.mark.parametrize(
    ("total", "before", "lost", "gained", "outcome", "words"),
    [
        (64, 0, 0, 0, "FAIL", "0 of 64 after, less than its bound 90.0%"),
        (64, 0, 0, 57, "FAIL", "57 of 64 after, less than its bound 90.0%"),
        (64, 0, 0, 58, "PASS", "significantly better"),
        (10, 0, 0, 9, "PASS", "9 of 10 after, significantly better"),
        (64, 60, 0, 0, "PASS", "was reached before, and it is not worse"),
        (64, 64, 4, 0, "PASS", "was reached before, and it is not worse"),
        (64, 64, 6, 0, "FAIL", "significantly worse"),
        (64, 57, 0, 1, "INCONCLUSIVE", "not significantly better (p = 1)"),
        (64, 57, 0, 5, "INCONCLUSIVE", "not significantly better (p = 0.062)"),
        (64, 57, 0, 6, "PASS", "significantly better (p = 0.031)"),
        (64, 57, 3, 6, "INCONCLUSIVE", "not significantly better"),
        (5, 0, 0, 5, "INCONCLUSIVE", "at least 6 images must become correct"),
        (6, 0, 0, 6, "PASS", "significantly better"),
        (0, 0, 0, 0, "INCONCLUSIVE", "has no held-out image"),
    ],
)
def test_a_scenario_is_fixed_if_it_is_significantly_better_and_reaches_its_bound(
    total: int, before: int, lost: int, gained: int, outcome: str, words: str
) -> None:
    counts = ScenarioCounts("dusk", total, before, before - lost + gained, lost, gained)
    judgement = judge_scenario(counts, 0.9, "its bound")
    assert judgement.outcome == outcome
    assert words in judgement.sentence
    assert judgement.sentence.startswith("dusk")


@pytest.mark.parametrize("required", [0.1 * k for k in range(1, 11)])
def test_a_scenario_exactly_at_its_bound_has_reached_it(required: float) -> None:
    after = round(required * 10)
    assert judge_scenario(ScenarioCounts("dusk", 10, after, after, 0, 0), required, "its bound").outcome == "PASS"


PASS, FAIL, OPEN = (Judgement(outcome, outcome) for outcome in ("PASS", "FAIL", "INCONCLUSIVE"))


@pytest.mark.parametrize(
    ("judgements", "outcome", "problems"),
    [
        ([], "INCONCLUSIVE", []),
        ([PASS, PASS], "PASS", []),
        ([PASS, OPEN], "INCONCLUSIVE", ["INCONCLUSIVE: INCONCLUSIVE"]),
        ([OPEN, FAIL, PASS], "FAIL", ["FAIL", "INCONCLUSIVE: INCONCLUSIVE"]),
    ],
)
def test_the_worst_judgement_decides(judgements: list[Judgement], outcome: str, problems: list[str]) -> None:
    assert outcome_of(judgements) == outcome
    assert problems_of(judgements) == problems
