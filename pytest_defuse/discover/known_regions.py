"""Regions that a scenario store already has."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from pytest_defuse.discover.regions import Region
from pytest_defuse.scenarios.scenario import Scenario


def known_as(
    region: Region, scenarios: Iterable[Scenario], classes: Sequence[str], generator_hash: str, max_overlap: float
) -> Scenario | None:
    """The first scenario of the same generator with the same error and an overlapping region, whatever its status.

    So a rejected scenario is not proposed again.

    Args:
        max_overlap: Bhattacharyya coefficient above which two regions overlap.
    """
    error = (classes[region.label], classes[region.prediction])
    return next(
        (s for s in scenarios if _error(s) == error and _overlap(s, region, generator_hash) > max_overlap), None
    )


def _error(scenario: Scenario) -> tuple[str | None, str | None]:
    """The proposed label, and the most frequent other prediction."""
    record = scenario.record
    errors = Counter(record.sheets.held_out.predicted)
    del errors[record.proposed_label]
    return record.proposed_label, errors.most_common(1)[0][0] if errors else None


def _overlap(scenario: Scenario, region: Region, generator_hash: str) -> float:
    stored = scenario.machine.region
    if stored is None or stored.generator != generator_hash:
        return 0.0
    mean, covariance = np.array(stored.mean), np.array(stored.covariance)
    return region.overlap(Region(mean, covariance, stored.tau, region.label, region.prediction, stored.weight))
