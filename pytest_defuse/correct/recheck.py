"""A short discovery after a correction: regions that still fail, and new ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pytest_defuse.discover.confirmation import TestedRegion
from pytest_defuse.discover.discovery import discover
from pytest_defuse.discover.generator import cached_generator
from pytest_defuse.discover.regions import Region
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.machine import LatentRegion
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.subject import Subject

BUDGET = 15_000
"""Forward passes of the model: a quarter of a discovery's default. Our choice."""

MIN_OVERLAP = 0.1
"""Bhattacharyya coefficient above which two regions of one label count as the same. Our choice."""


def recheck(
    subject: Subject, scenarios: Sequence[Scenario], *, device: torch.device | str, cache: Path, progress: Progress
) -> list[str]:
    """Search a corrected model for failures; the findings in sentences.

    The discovery has a small budget, and uses the generator and the seed that found most of the scenarios. Without this
    generator in the cache there is no search, because training another one takes longer than the correction.
    """
    known = {s.id: (s.record, s.machine.region) for s in scenarios if s.machine.region is not None}
    if not known:
        return ["not searched again: no accepted scenario has a region in latent space"]
    origins = Counter(
        (region.generator, len(region.mean), record.provenance.seed or 0) for record, region in known.values()
    )
    available = (
        (generator, seed)
        for (sha256, latent_dim, seed), _ in origins.most_common()
        if (generator := _available(subject, cache, sha256, latent_dim))
    )
    generator, seed = next(available, (None, 0))
    if generator is None:
        return [f"not searched again: the generators of its scenarios are not in the cache {cache.name}"]
    searched, settings = replace(subject, generator=generator), DiscoverySettings(budget=BUDGET)
    discovery = discover(searched, settings, seed=seed, device=device, cache=cache, progress=progress)
    discovery.journal.remove()
    regions = {
        name: _region(region, subject.index_of(record.label))
        for name, (record, region) in known.items()
        if record.label and region.generator == discovery.generator_hash
    }
    confirmed = [tested for tested in discovery.regions if tested.confirmed]
    totals = f"{discovery.failures:,} failures, {len(discovery.regions)} regions, {len(confirmed)} confirmed"
    findings = [f"searched again with {BUDGET:,} forward passes: {totals}"]
    if len(regions) < len(known):
        findings.append(f"{len(known) - len(regions)} scenarios come from another generator and were not compared")
    failing: dict[str, float] = {}
    new: list[TestedRegion] = []
    for tested in confirmed:  # candidates are at most a dozen of them
        found = tested.region
        same = [name for name, old in regions.items() if old.label == found.label and found.overlap(old) > MIN_OVERLAP]
        failing.update({name: max(tested.failure_rate, failing.get(name, 0)) for name in same})
        if not same:
            new.append(tested)
    findings += [f"{name} still fails: {rate:.0%} of fresh draws nearby" for name, rate in failing.items()]
    if not failing:
        findings.append(f"none of the {len(regions)} compared regions fails again")
    for tested in new:
        label, prediction = (subject.classes[i] for i in (tested.region.label, tested.region.prediction))
        rate = f"{tested.failure_rate:.0%} of fresh draws"
        findings.append(f"a new region fails: {label!r} classified as {prediction!r} in {rate}")
    return findings if new else [*findings, "no new region was confirmed"]


def _available(subject: Subject, cache: Path, sha256: str, latent_dim: int) -> ImageGenerator | None:
    """The generator with this hash: the subject's own or one in the cache."""
    if subject.generator is not None:
        return subject.generator if subject.generator.hash == sha256 else None
    try:
        return cached_generator(cache, sha256, subject.train_images.pixels.shape[1:], latent_dim)
    except DefuseError:
        return None


def _region(stored: LatentRegion, label: int) -> Region:
    return Region(np.array(stored.mean), np.array(stored.covariance), stored.tau, label, -1, stored.weight)
