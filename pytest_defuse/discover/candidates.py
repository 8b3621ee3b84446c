"""From a discovery to the store."""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pytest_defuse.discover.discovery import Candidate, Discovery
from pytest_defuse.discover.regions import Region
from pytest_defuse.scenarios.schema import (
    FORMAT,
    Evidence,
    FailureRate,
    LatentRegion,
    Method,
    Provenance,
    ScenarioRecord,
    Sheet,
    Sheets,
    StoreRecord,
    installed_versions,
)
from pytest_defuse.scenarios.sheets import sheet_of, tile_of
from pytest_defuse.scenarios.store import Store, Stored, scenario_id
from pytest_defuse.scenarios.verify import budget_warnings
from pytest_defuse.subject.subject import Subject


def store_candidates(store: Store, subject: Subject, discovery: Discovery) -> Stored:
    """Write each candidate as a scenario of status ``candidate``; one that is there already is not touched.

    A candidate is known when a stored scenario of the same generator shows the same error at an
    overlapping place, whatever became of it: what was rejected once is not proposed again.

    Raises:
        DefuseError: the store belongs to other classes or another image size.
    """
    if not discovery.candidates:
        return Stored((), ())
    tile = tile_of(discovery.candidates[0].held_out.numpy())
    store.open_for(
        subject.classes,
        StoreRecord(format=FORMAT, classes=tuple(subject.classes), tile=tile),
    )
    present = store.scenarios()
    new, known = [], []
    for candidate in discovery.candidates:
        same = [s for s in present if _same(s.record, candidate.region, subject, discovery)]
        if same:
            known.append(same[0])
        else:
            record = record_of(candidate, subject, discovery)
            new.append(store.add(record, candidate.correction.numpy(), candidate.held_out.numpy()))
    for excess in budget_warnings(store):
        warnings.warn(str(excess), stacklevel=2)
    return Stored(tuple(new), tuple(known))


def record_of(candidate: Candidate, subject: Subject, discovery: Discovery) -> ScenarioRecord:
    """The scenario.yaml of a candidate."""
    region = candidate.region
    # A covariance is symmetric; a computed one only up to rounding.
    covariance = (region.covariance + region.covariance.T) / 2
    label, prediction = subject.classes[region.label], subject.classes[region.prediction]
    low, high = candidate.interval
    held_out = _sheet(candidate.held_out, candidate.held_out_predictions, subject.classes)
    return ScenarioRecord(
        format=FORMAT,
        id=scenario_id(label, prediction, held_out.sha256),
        status="candidate",
        label=None,
        proposed_label=label,
        failure_rate=FailureRate(failed=candidate.failed, drawn=candidate.drawn, low=low, high=high),
        tile=tile_of(candidate.held_out.numpy()),
        sheets=Sheets(
            correction=_sheet(candidate.correction, candidate.correction_predictions, subject.classes),
            held_out=held_out,
        ),
        method=Method(name="defuse"),
        evidence=_evidence(candidate, subject.classes),
        provenance=Provenance(
            model=discovery.model_hash,
            data=discovery.data_hash,
            seed=discovery.seed,
            versions=installed_versions(),
        ),
        region=LatentRegion(
            generator=discovery.generator_hash,
            weight=region.weight,
            tau=region.tau,
            mean=tuple(region.mean.tolist()),
            covariance=tuple(tuple(row) for row in covariance.tolist()),
        ),
    )


def _sheet(pixels: Tensor, predictions: Tensor, classes: Sequence[str]) -> Sheet:
    return sheet_of(pixels.numpy(), [classes[index] for index in predictions.tolist()])


def _evidence(candidate: Candidate, classes: Sequence[str]) -> Evidence | None:
    found = candidate.evidence
    if found is None:
        return None
    return Evidence(
        nearest_images=found.images,
        nearest_labels=tuple(classes[label] for label in found.labels),
        nearest_distances=found.distances,
        source_labels={classes[label]: count for label, count in found.sources},
    )


def _same(record: ScenarioRecord, region: Region, subject: Subject, discovery: Discovery) -> bool:
    """Whether a stored scenario shows the error of a region at an overlapping place."""
    stored = record.region
    if stored is None or stored.generator != discovery.generator_hash:
        return False
    wrong = Counter(record.sheets.held_out.predicted)
    del wrong[record.proposed_label]
    error = (record.proposed_label, wrong.most_common(1)[0][0] if wrong else None)
    if error != (subject.classes[region.label], subject.classes[region.prediction]):
        return False
    mean, covariance = np.array(stored.mean), np.array(stored.covariance)
    other = Region(mean, covariance, stored.tau, region.label, region.prediction, stored.weight)
    return region.overlap(other) > discovery.settings.max_overlap
