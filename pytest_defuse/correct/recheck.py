"""After a correction: do the same regions still fail, and have new ones opened?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pytest_defuse.discover.cached_generator import stored_generator
from pytest_defuse.discover.discovery import Candidate, discover
from pytest_defuse.discover.regions import Region
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.schema import LatentRegion
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.subject import Subject

BUDGET = 15_000
"""Forward passes of the model: a quarter of a discovery's."""
OVERLAP = 0.1
"""Bhattacharyya coefficient from which two regions of one label are the same place."""


def recheck(
    subject: Subject,
    scenarios: Sequence[Scenario],
    *,
    device: torch.device | str,
    cache: Path,
    progress: Progress,
) -> list[str]:
    """Search a corrected model briefly; what was found, in sentences.

    With the generator, the seed and so the judges that found most of the scenarios; where that generator is not in
    the cache nothing is searched: training another takes longer than the correction.

    Args:
        subject: with the corrected model.
        scenarios: those it was corrected on.

    Raises:
        DefuseError: the discovery cannot be had.
    """
    known = {s.id: s.record for s in scenarios if s.record.region is not None}
    if not known:
        return ["not searched again: no accepted scenario has a region in latent space"]
    origins = Counter((r.region.generator, len(r.region.mean), r.provenance.seed) for r in known.values() if r.region)
    at_hand = (
        (generator, seed)
        for (sha256, latent, seed), _ in origins.most_common()
        if (generator := _at_hand(subject, cache, sha256, latent))
    )
    generator, seed = next(at_hand, (None, 0))
    if generator is None:
        return [f"not searched again: the generators that found its scenarios are not in {cache.name}"]
    discovery = discover(
        replace(subject, generator=generator),
        DiscoverySettings(budget=BUDGET),
        seed=seed,
        device=device,
        cache=cache,
        progress=progress,
    )
    places = {
        name: _region(record.region, subject.index_of(record.label))
        for name, record in known.items()
        if record.region is not None and record.label and record.region.generator == discovery.generator_hash
    }
    found = [
        f"searched again with {BUDGET:,} passes: {discovery.failures:,} failures, {len(discovery.regions)} regions"
    ]
    if len(places) < len(known):
        found.append(f"{len(known) - len(places)} scenarios come from another generator and were not compared")
    still: dict[str, float] = {}
    opened: list[Candidate] = []
    for candidate in discovery.candidates:
        near = [name for name, place in places.items() if _same_place(candidate.region, place)]
        still.update(dict.fromkeys(near, candidate.failure_rate))
        if not near:
            opened.append(candidate)
    found += [f"{name} still fails: {rate:.0%} of fresh draws nearby" for name, rate in still.items()]
    if not still:
        found.append(f"none of the {len(places)} regions that were compared was found to fail again")
    for candidate in opened:
        shows, says = subject.classes[candidate.region.label], subject.classes[candidate.region.prediction]
        found.append(
            f"another region fails: {shows!r} taken for {says!r} in {candidate.failure_rate:.0%} of fresh draws"
        )
    return found if opened else [*found, "no other region was confirmed"]


def _at_hand(subject: Subject, cache: Path, sha256: str, latent: int) -> ImageGenerator | None:
    """The generator of this hash: the subject's own or one in the cache."""
    if subject.generator is not None:
        return subject.generator if subject.generator.hash == sha256 else None
    try:
        return stored_generator(cache, sha256, subject.train_images.pixels.shape[1:], latent)
    except DefuseError:
        return None


def _region(stored: LatentRegion, label: int) -> Region:
    return Region(np.array(stored.mean), np.array(stored.covariance), stored.tau, label, -1, stored.weight)


def _same_place(region: Region, place: Region) -> bool:
    return region.label == place.label and region.overlap(place) > OVERLAP
