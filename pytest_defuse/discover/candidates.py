"""Writing the candidates of a discovery to the scenario store."""

import warnings
from collections import Counter

import numpy as np

from pytest_defuse.discover.discovery import Candidate, Discovery
from pytest_defuse.discover.regions import Region
from pytest_defuse.scenarios.machine import LatentRegion, MachineRecord, Tiles
from pytest_defuse.scenarios.schema import (
    FORMAT,
    FailureRate,
    Provenance,
    ScenarioRecord,
    Sheets,
    StoreRecord,
    description_of,
    installed_versions,
)
from pytest_defuse.scenarios.sheets import sheet_record, tile_format
from pytest_defuse.scenarios.store import Scenario, Store, Stored, scenario_id
from pytest_defuse.scenarios.verify import budget_warnings
from pytest_defuse.subject.subject import Subject


def store_candidates(store: Store, subject: Subject, discovery: Discovery) -> Stored:
    """Write each candidate as a scenario with the status ``candidate``; stored scenarios are not changed.

    A candidate is known if a stored scenario of the same generator has the same error and an overlapping region,
    whatever its status: a rejected scenario is not proposed again.

    Raises:
        DefuseError: the store has other classes or another image size.
    """
    if not discovery.candidates:
        return Stored((), ())
    store.open_for(StoreRecord.of(subject.classes, tile_format(discovery.candidates[0].held_out.numpy())))
    stored = store.scenarios()
    new, known = [], []
    for candidate in discovery.candidates:
        same = [s for s in stored if _same(s, candidate.region, subject, discovery)]
        if same:
            known.append(same[0])
        else:
            records = _records(candidate, subject, discovery)
            new.append(store.add(*records, candidate.correction.numpy(), candidate.held_out.numpy()))
    for problem in budget_warnings(store):
        warnings.warn(str(problem), stacklevel=2)
    return Stored(tuple(new), tuple(known))


def _records(candidate: Candidate, subject: Subject, discovery: Discovery) -> tuple[ScenarioRecord, MachineRecord]:
    """The content of a candidate's scenario.yaml and machine.json."""
    region = candidate.region
    # A computed covariance is symmetric only up to rounding.
    covariance = (region.covariance + region.covariance.T) / 2
    correction = [subject.classes[index] for index in candidate.correction_predictions.tolist()]
    held_out = [subject.classes[index] for index in candidate.held_out_predictions.tolist()]
    machine = MachineRecord(
        format=FORMAT,
        correction=Tiles(predicted=tuple(correction)),
        held_out=Tiles(predicted=tuple(held_out)),
        region=LatentRegion(
            generator=discovery.generator_hash,
            weight=region.weight,
            tau=region.tau,
            mean=tuple(region.mean.tolist()),
            covariance=tuple(tuple(row) for row in covariance.tolist()),
        ),
        evidence=candidate.evidence,
    ).rounded()
    label, prediction = subject.classes[region.label], subject.classes[region.prediction]
    low, high = candidate.interval
    sheets = Sheets(
        correction=sheet_record(candidate.correction.numpy(), correction),
        held_out=sheet_record(candidate.held_out.numpy(), held_out),
    )
    provenance = Provenance(
        model=discovery.model_fingerprint, data=discovery.data_hash, seed=discovery.seed, versions=installed_versions()
    )
    record = ScenarioRecord(
        format=FORMAT,
        id=scenario_id(label, prediction, sheets.held_out.sha256),
        status="candidate",
        label=None,
        proposed_label=label,
        description=description_of(label, prediction),
        failure_rate=FailureRate(failed=candidate.failed, drawn=candidate.drawn, low=low, high=high),
        tile=tile_format(candidate.held_out.numpy()),
        sheets=sheets,
        method="defuse",
        provenance=provenance,
        machine=machine.sha256,
    )
    return record, machine


def _same(scenario: Scenario, region: Region, subject: Subject, discovery: Discovery) -> bool:
    """Whether a stored scenario has the same error as a region, and a region that overlaps it."""
    record, stored = scenario.record, scenario.machine.region
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
