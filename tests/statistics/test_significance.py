"""Intervals and tests against scipy and statsmodels on random inputs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, false_discovery_control
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint, proportions_ztest

from pytest_defuse.statistics.accuracy import wilson_interval
from pytest_defuse.statistics.significance import (
    benjamini_hochberg,
    binomial_tail,
    images_needed,
    mcnemar,
    paired_interval,
    paired_score,
    score,
    two_sided_p,
)
from tests.examples import fewer_examples

confidences = st.floats(0.5, 0.999)


@st.composite
def tallies(draw: st.DrawFn) -> tuple[int, int]:
    """Successes, of a total."""
    total = draw(st.integers(1, 5000))
    return draw(st.integers(0, total)), total


@st.composite
def changes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Images lost and gained, of a total."""
    total = draw(st.integers(1, 2000))
    lost = draw(st.integers(0, total))
    return lost, draw(st.integers(0, total - lost)), total


@given(tally=tallies(), confidence=confidences)
def test_wilson_is_that_of_scipy_and_statsmodels(tally: tuple[int, int], confidence: float) -> None:
    ours = wilson_interval(*tally, confidence)
    scipys = binomtest(*tally).proportion_ci(confidence, method="wilson")
    assert ours == pytest.approx((scipys.low, scipys.high), abs=1e-9)
    assert ours == pytest.approx(proportion_confint(*tally, alpha=1 - confidence, method="wilson"), abs=1e-9)


@given(tally=tallies(), share=st.floats(0.01, 0.99))
def test_the_score_test_is_that_of_statsmodels(tally: tuple[int, int], share: float) -> None:
    z, p = proportions_ztest(*tally, value=share, prop_var=share)
    assert score(*tally, share) == pytest.approx(z, rel=1e-9, abs=1e-9)
    assert two_sided_p(score(*tally, share)) == pytest.approx(p, rel=1e-6, abs=1e-300)


@given(tally=tallies(), share=st.floats(0.01, 0.99), confidence=confidences)
def test_the_interval_holds_what_the_score_test_does_not_refuse(
    tally: tuple[int, int], share: float, confidence: float
) -> None:
    low, high = wilson_interval(*tally, confidence)
    p = two_sided_p(score(*tally, share))
    if abs(p - (1 - confidence)) > 1e-9:
        assert (low <= share <= high) == (p > 1 - confidence)


@given(lost=st.integers(0, 3000), gained=st.integers(0, 3000))
def test_mcnemar_is_exact(lost: int, gained: int) -> None:
    p = mcnemar(lost, gained)
    table = [[5, lost], [gained, 7]]
    assert p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-9)
    if lost + gained:
        assert p == pytest.approx(binomtest(lost, lost + gained).pvalue, rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_is_that_of_scipy_and_statsmodels(p_values: list[float]) -> None:
    adjusted = benjamini_hochberg(p_values)
    assert adjusted == pytest.approx(false_discovery_control(p_values).tolist())
    assert adjusted == pytest.approx(multipletests(p_values, method="fdr_bh")[1].tolist())


def test_no_p_values_need_no_adjustment() -> None:
    assert benjamini_hochberg([]) == []


@given(changed=changes())
def test_at_no_drop_tangos_score_is_mcnemars(changed: tuple[int, int, int]) -> None:
    lost, gained, total = changed
    if lost + gained:
        statistic = statsmodels_mcnemar([[0, lost], [gained, 0]], exact=False, correction=False).statistic
        assert paired_score(lost, gained, total, 0.0) ** 2 == pytest.approx(statistic, abs=1e-9)


@fewer_examples(50)
@given(changed=changes(), drop=st.floats(-0.9, 0.9))
def test_tangos_score_uses_the_likeliest_variance(changed: tuple[int, int, int], drop: float) -> None:
    lost, gained, total = changed
    chances = np.linspace(max(0.0, -drop), (1 - drop) / 2, 200_001)[1:-1]
    with np.errstate(divide="ignore"):
        terms = ((lost, chances + drop), (gained, chances), (total - lost - gained, 1 - 2 * chances - drop))
        likelihood = sum(count * np.log(share) for count, share in terms if count)
    chance = chances[np.argmax(likelihood)]
    z = ((lost - gained) / total - drop) / math.sqrt((2 * chance + drop - drop**2) / total)
    assert paired_score(lost, gained, total, drop) == pytest.approx(z, rel=0.01, abs=0.01)


@given(changed=changes(), confidence=confidences, drop=st.floats(-1, 1))
def test_the_paired_interval_holds_the_drops_that_are_not_refused(
    changed: tuple[int, int, int], confidence: float, drop: float
) -> None:
    low, high = paired_interval(*changed, confidence)
    lost, gained, total = changed
    assert -1 <= low <= (lost - gained) / total <= high <= 1
    p = two_sided_p(paired_score(*changed, drop))
    if abs(p - (1 - confidence)) > 1e-9:
        assert (low - 1e-12 <= drop <= high + 1e-12) == (p > 1 - confidence)


@given(changed=changes())
def test_the_paired_interval_is_the_same_from_both_sides(changed: tuple[int, int, int]) -> None:
    lost, gained, total = changed
    low, high = paired_interval(lost, gained, total)
    assert paired_interval(gained, lost, total) == pytest.approx((-high, -low), abs=1e-9)


def test_no_images_tell_nothing() -> None:
    assert paired_interval(0, 0, 0) == (-1.0, 1.0)
    assert score(0, 0, 0.5) == paired_score(0, 0, 0, 0.1) == 0


@given(correct=st.integers(0, 40), share=st.floats(0.05, 0.95), confidence=confidences)
def test_so_many_images_tell_and_hardly_fewer(correct: int, share: float, confidence: float) -> None:
    total, alpha = 40, 1 - confidence
    z = score(correct, total, share)
    needed = images_needed(total, two_sided_p(z), alpha)
    if needed is None:
        assert z == pytest.approx(0, abs=1e-6)
    elif two_sided_p(z) > alpha:
        assert needed > total

        def p(images: int) -> float:
            return two_sided_p(z * math.sqrt(images / total))

        assert p(needed) <= alpha * (1 + 1e-6)
        assert p(needed - 1) >= alpha * (1 - 1e-6)


def test_no_number_of_images_decides_a_share_equal_to_its_bound() -> None:
    assert images_needed(100, 1.0, 0.05) is None


@pytest.mark.parametrize("total", [20, 256])
def test_the_intervals_coverage_is_as_stated(total: int) -> None:
    """Exactly, by the binomial distribution; ``benchmarks/coverage.py`` simulates it."""
    from scipy.stats import binom

    intervals = [wilson_interval(correct, total) for correct in range(total + 1)]
    covered = []
    for share in np.arange(0.5, 0.9901, 0.01):
        chances = binom.pmf(np.arange(total + 1), total, share)
        covered.append(sum(c for c, (low, high) in zip(chances, intervals, strict=True) if low <= share <= high))
    assert 0.94 <= np.mean(covered) <= 0.96
    assert min(covered) > 0.8


@given(st.integers(1, 200), st.integers(-5, 210), st.floats(0, 1))
def test_the_binomial_tail_is_scipys(total: int, count: int, share: float) -> None:
    assert binomial_tail(count, total, share) == pytest.approx(binom.sf(count - 1, total, share), abs=1e-9)
