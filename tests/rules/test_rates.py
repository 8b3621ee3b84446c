"""The paper's definitions and its worked numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.rules.rates import Cluster, aler, aler_interval

# Barlow, tables 2 to 5: the rows of depth-1 trees. Class, BER, ER, EC, ALER.
PAPER = """
purse 0.3085 0.4179 0.6409 0.3433
monastery 0.3861 0.6345 0.3543 0.4301
maillot 0.6592 0.7564 0.4819 0.6696
monitor 0.4731 0.6061 0.7431 0.5247
tiger-cat 0.4969 0.8754 0.4458 0.5946
titi 0.4131 0.5240 0.8138 0.4664
lotion 0.3624 0.4797 0.6920 0.4040
pitcher 0.3438 0.6253 0.5526 0.4444
hog 0.3315 0.6842 0.7842 0.5615
trench-coat 0.1339 0.3196 0.8227 0.2693
baseball 0.1069 0.3034 0.9712 0.2948
bakery 0.2695 0.3875 0.7793 0.3307
polaroid-camera 0.1141 0.2713 0.8671 0.2384
saluki 0.1122 0.2287 0.5772 0.1600
trailer-truck 0.1121 0.2184 0.5036 0.1472
apiary 0.1057 0.2341 0.8041 0.1969
anemone-fish 0.1056 0.2573 0.4247 0.1516
theater-curtain 0.1049 0.2482 0.5072 0.1583
forklift 0.1047 0.2379 0.8889 0.2136
french-bulldog 0.1022 0.2103 0.3712 0.1273
syringe 0.2020 0.3519 0.4894 0.2455
rhodesian-ridgeback 0.2093 0.3184 0.4561 0.2337
tiger-cat 0.7715 0.8786 0.9521 0.8473
lighter 0.7285 0.8608 0.9335 0.8188
purse 0.7277 0.9258 0.5011 0.7627
chihuahua 0.7269 0.9332 0.7386 0.8062
rifle 0.7223 0.9558 0.5985 0.7846
crayfish 0.7154 0.9294 0.5806 0.7671
cougar 0.3438 0.6074 0.9172 0.5620
butternut-squash 0.3438 0.6034 0.7830 0.5017
sea-cucumber 0.3438 0.6042 0.7718 0.4983
zucchini 0.3431 0.6445 0.8049 0.5416
table-lamp 0.3423 0.7251 0.7528 0.5783
paper-towel 0.6310 0.7825 0.6566 0.6720
seat-belt 0.5983 0.7402 0.5816 0.6282
crutch 0.5842 0.7302 0.7233 0.6343
lumbermill 0.5625 0.7049 0.4362 0.5817
bassoon 0.5621 0.7490 0.6474 0.6208
impala 0.3535 0.6298 0.5917 0.4609
boxer 0.3527 0.4991 0.7671 0.4246
samoyed 0.3487 0.5304 0.6247 0.4147
milk-can 0.3530 0.6284 0.6300 0.4707
gasmask 0.3521 0.6216 0.5736 0.4514
king-crab 0.3487 0.5991 0.5770 0.4396
"""
ROWS = [(name, *map(float, numbers)) for name, *numbers in map(str.split, PAPER.strip().splitlines())]
MISPRINTED = {"apiary": 0.1946}

leaves = st.tuples(st.integers(0, 60), st.integers(0, 60))
trees = st.lists(leaves, min_size=1, max_size=8).filter(lambda tree: any(failures for failures, _ in tree))


def tree_of(counts: list[tuple[int, int]]) -> list[Cluster]:
    """A whole tree from the failures and successes in its leaves."""
    failures, successes = (sum(column) for column in zip(*counts, strict=True))
    return [Cluster(f, f + s, failures, failures + successes) for f, s in counts]


def test_there_are_44_rows() -> None:
    assert len(ROWS) == 44


@pytest.mark.parametrize("row", ROWS, ids=[f"{index}-{row[0]}" for index, row in enumerate(ROWS)])
def test_the_papers_tables_are_reproduced(row: tuple[str, float, float, float, float]) -> None:
    """BER, ER and EC of one leaf determine the other leaf of a tree of depth 1, and ALER."""
    name, base, rate, coverage, printed = row
    images = 10**8  # the printed rates have four digits; with counts this large no other rounding matters
    group_failures = round(base * images)
    failures = round(coverage * group_failures)
    count = round(failures / rate)
    tree = tree_of(
        [(failures, count - failures), (group_failures - failures, images - count - group_failures + failures)]
    )
    assert tree[0].base_error_rate == pytest.approx(base)
    assert tree[0].error_rate == pytest.approx(rate)
    assert tree[0].error_coverage == pytest.approx(coverage)
    assert aler(tree) == pytest.approx(MISPRINTED.get(name, printed), abs=6e-4)


def test_the_papers_syringe() -> None:
    """'syringe' by prediction: the leaves fail on 139 of 395 and 145 of 1,011."""
    first, second = tree_of([(139, 256), (145, 866)])
    assert first.base_error_rate == pytest.approx(0.2020, abs=5e-5)
    assert first.error_rate == pytest.approx(0.3519, abs=5e-5)
    assert first.error_coverage == pytest.approx(0.4894, abs=5e-5)
    assert first.importance == pytest.approx(0.1722, abs=5e-5)
    assert 100 * first.increase == pytest.approx(14.99, abs=5e-3)
    assert aler([first, second]) == pytest.approx(0.2455, abs=5e-5)


def test_the_papers_figure_5() -> None:
    """A leaf of error rate 0.454 in a group with base error rate 0.2: the printed 0.291 is ALER."""
    tree = tree_of([(100, 120), (100, 680)])
    assert tree[0].base_error_rate == pytest.approx(0.2)
    assert tree[0].error_rate == pytest.approx(0.454, abs=1e-3)
    assert aler(tree) == pytest.approx(0.291, abs=1e-3)


@given(trees)
def test_proposition_1(counts: list[tuple[int, int]]) -> None:
    """Some leaf has at least the error rate ALER; EC sums to 1; ALER is no less than BER."""
    tree = tree_of(counts)
    assert max(leaf.error_rate for leaf in tree) >= aler(tree) - 1e-12
    assert sum(leaf.error_coverage for leaf in tree) == pytest.approx(1)
    assert sum(leaf.importance for leaf in tree) == pytest.approx(aler(tree))
    assert aler(tree) >= tree[0].base_error_rate - 1e-12


@given(trees)
def test_intervals_contain_their_values(counts: list[tuple[int, int]]) -> None:
    tree = tree_of(counts)
    for leaf in tree:
        for value, (low, high) in (
            (leaf.error_rate, leaf.error_rate_interval),
            (leaf.error_coverage, leaf.error_coverage_interval),
            (leaf.importance, leaf.importance_interval),
        ):
            assert 0 <= low <= value + 1e-12
            assert value - 1e-12 <= high <= 1
    low, high = aler_interval(tree)
    assert 0 <= low <= aler(tree) + 1e-12
    assert aler(tree) - 1e-12 <= high <= 1


@pytest.mark.parametrize("statistic", ["ALER", "IV"])
def test_the_intervals_of_products_have_their_coverage(statistic: str) -> None:
    """About 95% of the intervals from groups of a known tree contain the true value."""
    cells = np.array([0.10, 0.15, 0.05, 0.35, 0.06, 0.29])  # failures and successes of three leaves

    def values(counts: np.ndarray) -> tuple[float, tuple[float, float]]:
        tree = tree_of([(int(f), int(s)) for f, s in counts.reshape(3, 2)])
        if statistic == "ALER":
            return aler(tree), aler_interval(tree)
        return tree[0].importance, tree[0].importance_interval

    truth, _ = values((cells * 10**6).round())
    draws = np.random.default_rng(0).multinomial(1000, cells, size=1000)
    intervals = [values(counts)[1] for counts in draws]
    assert 0.93 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.97


def test_empty_leaves_and_groups_without_failures_have_rates() -> None:
    empty, spared = Cluster(0, 0, 5, 9), Cluster(0, 4, 0, 9)
    assert (empty.error_rate, empty.error_coverage, empty.p_value) == (0, 0, 1)
    assert (spared.base_error_rate, spared.error_coverage, spared.p_value) == (0, 0, 1)
    assert aler([empty, spared]) == 0
    assert aler_interval([spared]) == (0, 1)


def test_the_p_value_is_that_of_a_permutation_test() -> None:
    failed = np.arange(40) < 12
    random = np.random.default_rng(0)
    shuffled = np.array([random.permutation(failed)[:15].sum() for _ in range(20_000)])
    for failures in (3, 5, 7):
        assert Cluster(failures, 15, 12, 40).p_value == pytest.approx((shuffled >= failures).mean(), abs=0.015)
