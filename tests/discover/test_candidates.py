from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_defuse.discover.candidates import store_candidates
from pytest_defuse.discover.discovery import Candidate, Discovery
from pytest_defuse.discover.judge_calibration import JudgesReport
from pytest_defuse.discover.regions import Region
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.machine import Evidence
from pytest_defuse.scenarios.store import Store
from pytest_defuse.statistics.accuracy import wilson_interval
from pytest_defuse.subject.subject import Subject
from tests.scenarios.planting import DIGITS, random_tiles

SUBJECT = Subject(name="digits", model=nn.Identity(), classes=DIGITS, train=[], test=[])


def candidate(place: float = 0.0, label: int = 3, predicted: int = 5, seed: int = 0) -> Candidate:
    """A region at a place in latent space, and eight images per sheet; the model is correct on one of them."""
    covariance = np.array([[1, 1 / 3], [1 / 3 + 1e-16, 1]])  # symmetric up to rounding, like a computed one
    region = Region(np.array([place, 1 / 3]), covariance, 0.5, label, predicted, 0.25)
    predictions = torch.tensor([predicted] * 7 + [label])
    correction, held_out = (torch.from_numpy(random_tiles(8, seed=2 * seed + part)) for part in range(2))
    return Candidate(
        region,
        failed=60,
        drawn=64,
        p_value=1e-9,
        coverage=0.1,
        confirmed=True,
        correction=correction,
        held_out=held_out,
        correction_predictions=predictions,
        held_out_predictions=predictions,
    )


def discovery(*candidates: Candidate, generator: str = "1") -> Discovery:
    return Discovery(
        candidates=candidates,
        settings=DiscoverySettings(),
        seed=7,
        accuracy=0.97,
        reconstruction_accuracy=0.9,
        judges=JudgesReport((0.96,), ()),
        failures=500,
        passes=5000,
        judge_passes=6000,
        regions=(),
        generator_hash=generator * 64,
        data_hash="3" * 64,
        model_fingerprint="2" * 64,
        journal=None,
        latent_images=None,
        failed_draws=None,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "digits")


def test_a_candidate_is_stored_with_its_images_and_its_provenance(store: Store) -> None:
    found = candidate()
    stored = store_candidates(store, SUBJECT, discovery(found))
    assert stored.known == ()
    assert list(stored.new) == store.scenarios("candidate")
    (scenario,) = stored.new
    np.testing.assert_array_equal(scenario.pixels("correction"), found.correction)
    np.testing.assert_array_equal(scenario.pixels("held_out"), found.held_out)
    record = scenario.record
    assert scenario.id.startswith("3-as-5-")
    assert (record.label, record.proposed_label) == (None, "3")
    assert record.sheets.held_out.predicted == {"5": 7, "3": 1}
    assert (record.failure_rate.failed, record.failure_rate.drawn) == (7, 8), "measured on the held-out tiles"
    assert (record.failure_rate.low, record.failure_rate.high) == pytest.approx(wilson_interval(7, 8))
    assert (record.provenance.model, record.provenance.data, record.provenance.seed) == ("2" * 64, "3" * 64, 7)
    assert record.description == "Images of 3 that the model classifies as 5."
    assert scenario.machine.region is not None
    assert scenario.machine.region.mean == (0, 0.333333333)
    assert store.record().classes == DIGITS


def test_the_prediction_of_each_tile_is_recorded(store: Store) -> None:
    (scenario,) = store_candidates(store, SUBJECT, discovery(candidate())).new
    assert scenario.machine.held_out.predicted == ("5",) * 7 + ("3",)


def test_evidence_is_stored_by_class_name(store: Store) -> None:
    collected = Evidence(
        nearest_images=(4, 2),
        nearest_labels=("3", "8"),
        nearest_distances=(0.25, 1.5),
        source_labels={"3": 9, "8": 1},
    )
    (scenario,) = store_candidates(store, SUBJECT, discovery(replace(candidate(), evidence=collected))).new
    evidence = scenario.machine.evidence
    assert evidence is not None
    assert (evidence.nearest_images, evidence.nearest_labels) == ((4, 2), ("3", "8"))
    assert (evidence.nearest_distances, evidence.source_labels) == ((0.25, 1.5), {"3": 9, "8": 1})
    assert evidence.in_words("3") == [
        "1 of the 2 nearest training images are labelled 3",
        "9 of 10 failures were drawn around training images labelled 3",
    ]
    assert evidence.in_words("8") == [
        "1 of the 2 nearest training images are labelled 8",
        "1 of 10 failures were drawn around training images labelled 8, against 9 labelled 3",
    ]
    assert (scenario.record.status, scenario.record.label) == ("candidate", None)


def test_a_store_above_its_budget_is_a_warning(store: Store) -> None:
    store_candidates(store, SUBJECT, discovery(candidate()))
    path = store.folder / "store.yaml"
    path.write_text(path.read_text().replace("scenarios: 100", "scenarios: 1"))
    with pytest.warns(UserWarning, match=r"store\.yaml:5: warning: budgets\.scenarios: the store has 2"):
        store_candidates(store, SUBJECT, discovery(candidate(place=9, seed=1)))


def test_a_discovery_without_candidates_writes_nothing(store: Store) -> None:
    stored = store_candidates(store, SUBJECT, discovery())
    assert (stored.new, stored.known) == ((), ())
    assert not store.folder.exists()


@pytest.mark.parametrize("status", ["candidate", "accepted", "rejected"])
def test_a_stored_error_is_not_proposed_again(store: Store, status: str) -> None:
    (scenario,) = store_candidates(store, SUBJECT, discovery(candidate())).new
    decided = store.update(scenario.id, status=status, label="3" if status == "accepted" else None)
    stored = store_candidates(store, SUBJECT, discovery(candidate(place=0.1, seed=1)))
    assert (stored.new, stored.known) == ((), (decided,))
    assert store.scenarios() == [decided]


@pytest.mark.parametrize(
    "other",
    [
        discovery(candidate(place=9, seed=1)),
        discovery(candidate(label=8, seed=1)),
        discovery(candidate(predicted=8, seed=1)),
        discovery(candidate(seed=1), generator="4"),
    ],
    ids=["another place", "another class", "another prediction", "another generator"],
)
def test_another_error_is_new(store: Store, other: Discovery) -> None:
    (first,) = store_candidates(store, SUBJECT, discovery(candidate())).new
    stored = store_candidates(store, SUBJECT, other)
    assert stored.known == ()
    assert {s.id for s in store.scenarios()} == {first.id, stored.new[0].id}


def test_a_subject_with_other_classes_cannot_write_to_the_store(store: Store) -> None:
    store_candidates(store, SUBJECT, discovery(candidate()))
    other = replace(SUBJECT, classes=DIGITS[::-1])
    with pytest.raises(DefuseError, match="give the subject another name"):
        store_candidates(store, other, discovery(candidate(place=9)))
    assert len(store.scenarios()) == 1
