"""Confirmation: a region counts only if fresh draws from it fail, more often than chance explains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom, chi2, false_discovery_control
from torch import Tensor

from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.regions import Region
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.runtime.determinism import Stream
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.statistics.accuracy import wilson_interval

FALSE_DISCOVERY_RATE = 0.05
"""Maximum expected share of confirmed regions that do not fail more often than rho (Benjamini-Hochberg); convention."""
COVERAGE_MASS = 0.95
"""A region covers the images inside the ellipsoid that contains this share of its Gaussian; convention."""
ROUND_FACTOR = 4
"""A sheet is filled in at most ROUND_FACTOR / rho rounds of draws; a failure rate above rho needs about 1 / rho. Our
choice."""


@dataclass(frozen=True, eq=False)
class TestedRegion:
    """A region and the result of fresh draws from it.

    Attributes:
        failed: number of draws in which the judges (reference classifiers that give a second opinion) see the region's
            label and the model predicts another class.
        drawn: number of fresh draws.
        p_value: for the hypothesis that the failure rate is at most rho: exact binomial, one-sided, adjusted for all
            regions tested together (Benjamini-Hochberg).
        coverage: share of the training images inside the region's 95% ellipsoid, in [0, 1].
        confirmed: the p-value is at most 0.05, and the interval lies above rho.
    """

    region: Region
    failed: int
    drawn: int
    p_value: float
    coverage: float
    confirmed: bool

    @property
    def failure_rate(self) -> float:
        """Share of fresh draws that fail, in [0, 1]."""
        return self.failed / self.drawn

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the failure rate (Wilson)."""
        return wilson_interval(self.failed, self.drawn)


def confirm(
    regions: Sequence[Region],
    evaluator: Evaluator,
    images: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    progress: Progress,
) -> tuple[list[TestedRegion], int]:
    """Test all regions on ``confirmations`` fresh draws each; those that cover the most images come first.

    The number is that of the judges' forward passes; the model's are one for each draw.
    """
    if not regions:
        return [], 0
    drawn, failure_counts, judge_passes = settings.confirmations, [], 0
    with progress.task("confirming regions", len(regions)) as advance:
        for number, region in enumerate(regions):
            codes = region.sample_codes(drawn, seed, Stream.CONFIRMATION, number)
            verdicts = evaluator.verdicts(codes, torch.full((drawn,), region.label))
            judge_passes += int(verdicts.judge_passes.sum())
            failure_counts.append(int((verdicts.failed & (verdicts.labels == region.label)).sum()))
            advance(1, f"{failure_counts[-1]} of {drawn} fail")
    p_values = false_discovery_control(binom.sf(np.array(failure_counts) - 1, drawn, settings.rho))
    means, results = images.means.double().numpy(), []
    for region, failed, p_value in zip(regions, failure_counts, p_values.tolist(), strict=True):
        coverage = (region.mahalanobis(means) <= chi2.ppf(COVERAGE_MASS, images.latent_dim)).mean()
        confirmed = p_value <= FALSE_DISCOVERY_RATE and wilson_interval(failed, drawn)[0] > settings.rho
        results.append(TestedRegion(region, failed, drawn, p_value, float(coverage), confirmed))
    return sorted(results, key=lambda result: (-result.coverage, -result.region.weight)), judge_passes


def sheet_images(
    region: Region, evaluator: Evaluator, settings: DiscoverySettings, seed: int, number: int
) -> tuple[Tensor, int]:
    """Up to twice ``settings.tiles`` decoded fresh draws, uint8 n x C x H x W, that confidently show the label.

    The number is that of all draws, each of which every judge evaluates.
    """
    count, drawn, batches = 2 * settings.tiles, 0, []
    # More than rho of the draws from a confirmed region show its label, so a few rounds are always enough.
    for attempt in range(ROUND_FACTOR * int(1 / settings.rho) + 1):
        codes = region.sample_codes(count, seed, Stream.SHEETS, number, attempt)
        drawn += count
        shown = evaluator.confidently_shows(codes, region.label)
        batches.append(evaluator.generator.decode(codes[shown]).cpu())
        if sum(map(len, batches)) >= count:
            break
    return torch.cat(batches)[:count], drawn
