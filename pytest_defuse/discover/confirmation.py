"""Confirmation: a region counts only when fresh draws from it fail, more often than chance explains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom, chi2, false_discovery_control
from torch import Tensor

from pytest_defuse.discover.evaluator import Evaluator
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.regions import Region
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.statistics.accuracy import wilson_interval

FALSE_DISCOVERIES = 0.05
"""Expected share of regions that do not fail more often than rho, among those confirmed (Benjamini-Hochberg)."""

MEMBERS = 0.95
"""A region covers the images inside the ellipsoid that holds this share of its failures."""

FRESH, PICTURES = 3, 4  # the streams of random numbers, beside those of search.py


@dataclass(frozen=True, eq=False)
class TestedRegion:
    """A region and what fresh draws from it showed.

    Attributes:
        region: where it is.
        failed, drawn: of ``drawn`` fresh draws, ``failed`` show the region's label to the judges while the
            model says another class.
        p_value: of so many failures if the rate were rho at most; exact binomial, adjusted after
            Benjamini and Hochberg for all regions tested together.
        coverage: share of the training images whose codes lie inside the ellipsoid that holds 95% of the region.
        confirmed: the p-value is at most 0.05 and the interval lies above rho.
    """

    region: Region
    failed: int
    drawn: int
    p_value: float
    coverage: float
    confirmed: bool

    @property
    def failure_rate(self) -> float:
        """The share of fresh draws that fail."""
        return self.failed / self.drawn

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the failure rate."""
        return wilson_interval(self.failed, self.drawn)


def tested(
    regions: Sequence[Region],
    evaluator: Evaluator,
    located: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    progress: Progress,
) -> list[TestedRegion]:
    """All regions with their verdicts, those that cover most images first."""
    if not regions:
        return []
    drawn, counts = settings.confirmations, []
    with progress.task("confirming regions", len(regions)) as advance:
        for number, region in enumerate(regions):
            codes = region.codes(drawn, seed, FRESH, number)
            verdicts = evaluator.verdicts(codes, torch.full((drawn,), region.label))
            counts.append(int((verdicts.failed & (verdicts.labels == region.label)).sum()))
            advance(1, f"{counts[-1]} of {drawn} fail")
    p_values = false_discovery_control(binom.sf(np.array(counts) - 1, drawn, settings.rho))
    results = [
        TestedRegion(
            region,
            failed,
            drawn,
            float(p_value),
            coverage(region, located.means),
            bool(p_value <= FALSE_DISCOVERIES and wilson_interval(failed, drawn)[0] > settings.rho),
        )
        for region, failed, p_value in zip(regions, counts, p_values, strict=True)
    ]
    return sorted(results, key=lambda result: (-result.coverage, -result.region.weight))


def coverage(region: Region, codes: Tensor) -> float:
    """Share of codes, float n x d, inside the ellipsoid that holds ``MEMBERS`` of a region's Gaussian."""
    offsets = codes.double().numpy() - region.mean
    distances = np.einsum("nd,dn->n", offsets, np.linalg.solve(region.covariance, offsets.T))
    return float((distances <= chi2.ppf(MEMBERS, len(region.mean))).mean())


def pictures(region: Region, evaluator: Evaluator, settings: DiscoverySettings, seed: int, number: int) -> Tensor:
    """Up to twice ``images`` decoded fresh draws of a region, uint8, on which its label is surely seen."""
    wanted, tiles = 2 * settings.images, []
    # The region was confirmed, so more than rho of its draws are sure: a few rounds always suffice.
    for attempt in range(4 * int(1 / settings.rho) + 1):
        codes = region.codes(wanted, seed, PICTURES + attempt, number)
        shown = evaluator.shown(codes, region.label)
        tiles.append(evaluator.generator.decode(codes[shown]).cpu())
        if sum(map(len, tiles)) >= wanted:
            break
    return torch.cat(tiles)[:wanted]
