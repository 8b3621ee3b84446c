"""Claim: the gate's 95% interval of an accuracy contains the true accuracy in 94 to 96% of samples, on average.

python benchmarks/coverage.py

Simulates 20,000 gates with 20 images and 20,000 with 256, for each of many true values: Wilson's interval for
accuracies from 0.5 to 0.99, and Tango's interval for the drop between two models on the same images, given the shares
of images that are lost and gained. No interval for a discrete number has the same coverage for every true value, so the
worst is printed too. Exits with 1 if a mean coverage of Wilson's interval is not between 94 and 96%, or one of Tango's,
which is conservative if few images change, is below 94%.
"""

import sys
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pytest_defuse.statistics.accuracy import wilson_interval
from pytest_defuse.statistics.significance import paired_interval

SAMPLES = 20_000
ACCURACIES = np.round(np.arange(0.5, 0.9901, 0.001), 3).tolist()
LOST_AND_GAINED = [(lost, gained) for lost in (0.02, 0.05, 0.1, 0.2, 0.3) for gained in (0.01, 0.05, 0.1, 0.2, 0.3)]


def accuracy_coverage(images: int, random: np.random.Generator) -> dict[str, float]:
    """Share of samples whose interval contains the true accuracy, by accuracy."""
    intervals = np.array([wilson_interval(correct, images) for correct in range(images + 1)])
    return {
        f"accuracy {accuracy:.3f}": covered(intervals[random.binomial(images, accuracy, SAMPLES)], accuracy)
        for accuracy in ACCURACIES
    }


def drop_coverage(images: int, random: np.random.Generator) -> dict[str, float]:
    """The same for the true drop, by the shares of lost and gained images."""
    interval = cache(lambda lost, gained: paired_interval(lost, gained, images))
    result = {}
    for lost, gained in LOST_AND_GAINED:
        samples = random.multinomial(images, [lost, gained, 1 - lost - gained], SAMPLES).tolist()
        intervals = np.array([interval(lost_images, gained_images) for lost_images, gained_images, _ in samples])
        result[f"{lost:.0%} lost, {gained:.0%} gained"] = covered(intervals, lost - gained)
    return result


def covered(intervals: NDArray[np.float64], truth: float) -> float:
    """Share of intervals, N x 2, that contain the true value."""
    return float(np.mean((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])))


def main() -> int:
    """Print the table; return 0 if the claim holds."""
    random = np.random.default_rng(0)
    print(f"coverage of the 95% interval, {SAMPLES:,} samples for each true value")
    print(f"{'interval':10}{'images':>7}{'values':>8}{'mean':>9}{'worst':>9}   at")
    claims = []
    for name, simulate, maximum in (("Wilson", accuracy_coverage, 0.96), ("Tango", drop_coverage, 1.0)):
        for images in (20, 256):
            coverage = simulate(images, random)
            worst = min(coverage, key=coverage.__getitem__)
            mean = float(np.mean(list(coverage.values())))
            claims.append(0.94 <= mean <= maximum)
            print(f"{name:10}{images:7}{len(coverage):8}{mean:9.2%}{coverage[worst]:9.2%}   {worst}")
    print("claim: mean coverage from 94% to 96% for Wilson, 94% or more for Tango")
    return int(not all(claims))


if __name__ == "__main__":
    sys.exit(main())
