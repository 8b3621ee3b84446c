"""The gate's tests of proportions, and intervals of differences, in plain Python.

scipy and statsmodels have these too, and the tests compare with them; importing either takes longer than most gates.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

NORMAL = NormalDist()


def critical_value(confidence: float) -> float:
    """The standard normal z that a two-sided test at this confidence, in (0, 1), must exceed."""
    return -NORMAL.inv_cdf((1 - confidence) / 2)  # (1 + confidence) / 2 rounds to 1 where (1 - confidence) / 2 is not 0


def two_sided_p(z: float) -> float:
    """The chance of a standard normal number at least as far from 0 as ``z``."""
    return math.erfc(abs(z) / math.sqrt(2))


def score(successes: int, total: int, share: float) -> float:
    """The score statistic of a proportion against ``share``, which Wilson's interval inverts."""
    return _standardised(successes / total - share, share * (1 - share), total) if total else 0.0


def paired_score(lost: int, gained: int, total: int, drop: float) -> float:
    """Tango's score statistic of a drop in accuracy between two models on the same images.

    Tango 1998, Statistics in Medicine 17, p. 891: at ``drop`` 0 it is McNemar's, without correction.

    Args:
        lost, gained: images that only the first, only the second model has right.
        drop: the difference of the two accuracies under the null hypothesis, in [-1, 1].
    """
    if not total:
        return 0.0
    # The most likely chance of an image to be gained, given the drop: the positive root of a quadratic.
    a = 2 * total
    b = (2 * total - lost + gained) * drop - lost - gained
    c = -gained * drop * (1 - drop)
    root = math.sqrt(max(0.0, b * b - 4 * a * c)) if c else abs(b)  # b squared may vanish
    chance = max(0.0, (root - b) / (2 * a))
    return _standardised((lost - gained) / total - drop, 2 * chance + drop * (1 - drop), total)


def paired_interval(lost: int, gained: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's interval of a drop in accuracy, in [-1, 1]: every drop that :func:`paired_score` does not refuse."""
    if not total:
        return -1.0, 1.0
    z = critical_value(confidence)
    drop = (lost - gained) / total
    low = _crossing(lambda value: paired_score(lost, gained, total, value) < z, -1.0, drop)
    high = _crossing(lambda value: paired_score(lost, gained, total, value) < -z, drop, 1.0)
    return low, high


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test (McNemar 1947, Psychometrika 12, p. 153): is one change likelier?"""
    changed = lost + gained
    ways = term = 1
    for fewer in range(min(lost, gained)):
        term = term * (changed - fewer) // (fewer + 1)
        ways += term
    return min(1.0, 2 * ways / (1 << changed))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: refusing those up to q has a false discovery rate of q (JRSS B 57, 1995, p. 289)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__, reverse=True)
    adjusted, least = [1.0] * len(p_values), 1.0
    for rank, index in zip(range(len(order), 0, -1), order, strict=True):
        least = adjusted[index] = min(least, p_values[index] * len(p_values) / rank)
    return adjusted


def images_to_tell(images: int, p: float, alpha: float) -> int | None:
    """How many images with the same shares would make a two-sided ``p``, found on ``images``, fall below ``alpha``.

    A score grows with the root of the number of images.

    Returns:
        None where no number would.
    """
    z = NORMAL.inv_cdf(p / 2)
    return math.floor(images * (NORMAL.inv_cdf(alpha / 2) / z) ** 2) + 1 if z else None


def _standardised(difference: float, variance: float, total: int) -> float:
    """A mean's difference in units of its standard deviation; ``variance`` is that of one of ``total`` terms."""
    if variance > 0:
        return difference / math.sqrt(variance) * math.sqrt(total)
    return math.copysign(math.inf, difference) if difference else 0.0


def _crossing(beyond: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``beyond``, false at ``low`` and true at ``high``, becomes true."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high
