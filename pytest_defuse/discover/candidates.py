"""Writing the candidates of a discovery to the scenario store."""

import warnings

from pytest_defuse.discover.confirmation import TestedRegion
from pytest_defuse.discover.discovery import Candidate, Discovery
from pytest_defuse.discover.known_regions import known_as
from pytest_defuse.scenarios.machine import LatentRegion, MachineRecord, Tiles
from pytest_defuse.scenarios.scenario import scenario_id
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
from pytest_defuse.scenarios.store import Store, Stored
from pytest_defuse.scenarios.verify import budget_warnings
from pytest_defuse.statistics.accuracy import wilson_interval
from pytest_defuse.subject.subject import Subject


def store_candidates(store: Store, subject: Subject, discovery: Discovery) -> Stored:
    """Write each candidate as a scenario with the status ``candidate``; stored scenarios are not changed.

    Candidates that another process has stored during the search are known too (:func:`known_as`).

    Raises:
        DefuseError: the store has other classes or another image size.
    """
    known = [scenario for _, scenario in discovery.known]
    left_out = _left_out(subject, discovery)
    if not discovery.candidates:
        return Stored((), tuple({scenario.id: scenario for scenario in known}.values()), left_out)
    store.open_for(StoreRecord.of(subject.classes, tile_format(discovery.candidates[0].held_out.numpy())))
    stored, new, max_overlap = store.scenarios(), [], discovery.settings.max_overlap
    for candidate in discovery.candidates:
        if same := known_as(candidate.region, stored, subject.classes, discovery.generator_hash, max_overlap):
            known.append(same)
        else:
            records = _records(candidate, subject, discovery)
            new.append(store.add(*records, candidate.correction.numpy(), candidate.held_out.numpy()))
    for problem in budget_warnings(store):
        warnings.warn(str(problem), stacklevel=2)
    return Stored(tuple(new), tuple({scenario.id: scenario for scenario in known}.values()), left_out)


def _left_out(subject: Subject, discovery: Discovery) -> tuple[str, ...]:
    """The confirmed regions that are not written, and why."""

    def named(tested: TestedRegion) -> str:
        label, prediction = (subject.classes[index] for index in (tested.region.label, tested.region.prediction))
        return f"{label} as {prediction} ({tested.failed} of {tested.drawn} draws fail)"

    beyond = "beyond the maximum number of candidates, or the budget in store.yaml"
    below = f"no more than {discovery.settings.rho:.0%} of the images on a sheet fail"
    return (
        *(f"{named(region)}: {beyond}" for region in discovery.left_out),
        *(f"{named(region)}: {below}" for region in discovery.below_rate),
    )


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
    failed, drawn = candidate.failed_tiles[1], len(candidate.held_out)
    low, high = wilson_interval(failed, drawn)
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
        failure_rate=FailureRate(failed=failed, drawn=drawn, low=low, high=high),
        tile=tile_format(candidate.held_out.numpy()),
        sheets=sheets,
        method="defuse",
        provenance=provenance,
        machine=machine.sha256,
    )
    return record, machine
