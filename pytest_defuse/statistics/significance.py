"""Tests of proportions, intervals of differences and multiple testing, in plain Python.

The tests compare them with scipy and statsmodels, whose import takes longer than most gates.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

NORMAL = NormalDist()


def critical_value(confidence: float) -> float:
    """The standard normal z above which a two-sided test rejects at this confidence, in (0, 1)."""
    return -NORMAL.inv_cdf((1 - confidence) / 2)  # (1 + confidence) / 2 would round to 1 near confidence 1


def two_sided_p(z: float) -> float:
    """The probability that a standard normal variable is at least as far from 0 as ``z``."""
    return math.erfc(abs(z) / math.sqrt(2))


def score(successes: int, total: int, share: float) -> float:
    """The score statistic of a proportion under the null hypothesis ``share``; Wilson's interval inverts this test."""
    return _standardised(successes / total - share, share * (1 - share), total) if total else 0.0


def paired_score(lost: int, gained: int, total: int, drop: float) -> float:
    """Tango's score statistic of a drop in accuracy between two models (Tango 1998, Statistics in Medicine 17, p. 891).

    Only the first model classifies ``lost`` images correctly, only the second ``gained``. ``drop`` is the difference of
    their accuracies under the null hypothesis, in [-1, 1]; at 0 it is McNemar's test, without continuity correction.
    """
    if not total:
        return 0.0
    # The maximum likelihood estimate of the probability of a gain, given the drop: a quadratic's positive root.
    a = 2 * total
    b = (2 * total - lost + gained) * drop - lost - gained
    c = -gained * drop * (1 - drop)
    root = math.sqrt(max(0.0, b * b - 4 * a * c)) if c else abs(b)  # b squared may underflow
    gain = max(0.0, (root - b) / (2 * a))
    return _standardised((lost - gained) / total - drop, 2 * gain + drop * (1 - drop), total)


def paired_interval(lost: int, gained: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's interval of a drop in accuracy, in [-1, 1]: every drop that :func:`paired_score` does not reject."""
    if not total:
        return -1.0, 1.0
    z = critical_value(confidence)
    drop = (lost - gained) / total
    low = _crossing(lambda value: paired_score(lost, gained, total, value) < z, -1.0, drop)
    high = _crossing(lambda value: paired_score(lost, gained, total, value) < -z, drop, 1.0)
    return low, high


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test that losses and gains are equally likely (1947, Psychometrika 12, p. 153)."""
    changed = lost + gained
    tail = term = 1  # binomial coefficients of 0, 1, ... of the changed images
    for count in range(min(lost, gained)):
        term = term * (changed - count) // (count + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << changed))


def binomial_tail(count: int, total: int, share: float) -> float:
    """The probability of at least ``count`` successes in ``total`` trials of probability ``share``, in [0, 1]."""
    if count <= 0 or share in (0, 1):
        return float(count <= total * share)

    def log_probability(k: int) -> float:
        choices = math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
        return choices + k * math.log(share) + (total - k) * math.log1p(-share)

    return min(1.0, math.fsum(math.exp(log_probability(k)) for k in range(count, total + 1)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those up to q has a false discovery rate of q (JRSS B 57, 1995, p. 289)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__, reverse=True)
    adjusted, smallest = [1.0] * len(p_values), 1.0
    for rank, index in zip(range(len(order), 0, -1), order, strict=True):
        smallest = adjusted[index] = min(smallest, p_values[index] * len(p_values) / rank)
    return adjusted


def images_needed(total: int, p: float, alpha: float) -> int | None:
    """How many images with the same shares would reduce a two-sided ``p``, measured on ``total``, below ``alpha``.

    The score statistic grows with the square root of the number of images; None if no number is enough.
    """
    z = NORMAL.inv_cdf(p / 2)
    return math.floor(total * (NORMAL.inv_cdf(alpha / 2) / z) ** 2) + 1 if z else None


def _standardised(difference: float, variance: float, total: int) -> float:
    """A mean's difference in units of its standard deviation; ``variance`` is that of one of ``total`` terms."""
    if variance > 0:
        return difference / math.sqrt(variance) * math.sqrt(total)
    return math.copysign(math.inf, difference) if difference else 0.0


def _crossing(above: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``above``, false at ``low`` and true at ``high``, becomes true, by bisection."""
    for _ in range(60):  # halves an interval of length 2 to below the precision of a float
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return high
