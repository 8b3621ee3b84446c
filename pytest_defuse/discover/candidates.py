"""Writing the candidates of a discovery to the scenario store."""

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
    """Write each candidate as a scenario with the status ``candidate``; stored scenarios stay as they are.

    A candidate is known if a stored scenario of the same generator has the same error and an overlapping region,
    whatever its status: a rejected scenario is not proposed again.

    Raises:
        DefuseError: the store has other classes or another image size.
    """
    if not discovery.candidates:
        return Stored((), ())
    tile = tile_of(discovery.candidates[0].held_out.numpy())
    store.open_for(
        subject.classes,
        StoreRecord(format=FORMAT, classes=tuple(subject.classes), tile=tile),
    )
    stored = store.scenarios()
    new, known = [], []
    for candidate in discovery.candidates:
        same = [s for s in stored if _same(s.record, candidate.region, subject, discovery)]
        if same:
            known.append(same[0])
        else:
            record = record_of(candidate, subject, discovery)
            new.append(store.add(record, candidate.correction.numpy(), candidate.held_out.numpy()))
    for problem in budget_warnings(store):
        warnings.warn(str(problem), stacklevel=2)
    return Stored(tuple(new), tuple(known))


def record_of(candidate: Candidate, subject: Subject, discovery: Discovery) -> ScenarioRecord:
    """The content of a candidate's scenario.yaml."""
    region = candidate.region
    # A computed covariance is symmetric only up to rounding.
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
            model=discovery.model_fingerprint,
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
    evidence = candidate.evidence
    if evidence is None:
        return None
    return Evidence(
        nearest_images=evidence.images,
        nearest_labels=tuple(classes[label] for label in evidence.labels),
        nearest_distances=evidence.distances,
        source_labels={classes[label]: count for label, count in evidence.sources},
    )


def _same(record: ScenarioRecord, region: Region, subject: Subject, discovery: Discovery) -> bool:
    """Whether a stored scenario has the same error as a region, and a region that overlaps it."""
    stored = record.region
    if stored is None or stored.generator != discovery.generator_hash:
        return False
    errors = Counter(record.sheets.held_out.predicted)
    del errors[record.proposed_label]
    error = (record.proposed_label, errors.most_common(1)[0][0] if errors else None)
    if error != (subject.classes[region.label], subject.classes[region.prediction]):
        return False
    mean, covariance = np.array(stored.mean), np.array(stored.covariance)
    other = Region(mean, covariance, stored.tau, region.label, region.prediction, stored.weight)
    return region.overlap(other) > discovery.settings.max_overlap
