from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pytest_defuse.correct.recheck as module
from pytest_defuse.correct.recheck import recheck
from pytest_defuse.discover.cached_generator import stored_generator
from pytest_defuse.discover.regions import Region
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.subject import Subject

GENERATOR = "c" * 64
COVARIANCE = ((1.0, 0.0), (0.0, 1.0))


def found(subject: Subject, scenario: Scenario, tmp_path: Path) -> list[str]:
    return recheck(subject, [scenario], device="cpu", cache=tmp_path, progress=Progress())


@pytest.fixture
def placed(scenario: Scenario) -> Scenario:
    """The scenario with a region around the origin of a two-dimensional latent space."""
    region = {
        "generator": GENERATOR,
        "weight": 0.5,
        "tau": 0.5,
        "mean": (0.0, 0.0),
        "covariance": ((1.0, 0.0), (0.0, 1.0)),
    }
    return scenario.store.update(scenario.id, region=region)


@pytest.fixture(autouse=True)
def generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator is in the cache."""
    monkeypatch.setattr(module, "stored_generator", lambda *_: SimpleNamespace(hash=GENERATOR))


def discovery(*places: tuple[float, int], generator: str = GENERATOR) -> SimpleNamespace:
    """A discovery with a candidate at each (coordinate, label)."""
    candidates = [
        SimpleNamespace(region=Region(np.full(2, x), np.eye(2), 0.5, label, 1 - label, 0.5), failure_rate=0.75)
        for x, label in places
    ]
    return SimpleNamespace(candidates=candidates, failures=80, regions=(), generator_hash=generator)


def test_without_a_region_there_is_no_place_to_search(
    subject: Subject, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: pytest.fail("nothing to compare with"))
    (said,) = found(subject, scenario, tmp_path)
    assert said == "not searched again: no accepted scenario has a region in latent space"


def test_without_the_generator_nothing_is_trained_to_search(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: pytest.fail("it would train a generator"))
    monkeypatch.setattr(module, "stored_generator", stored_generator)
    (said,) = found(subject, placed, tmp_path)
    assert said == f"not searched again: the generators that found its scenarios are not in {tmp_path.name}"


def test_the_search_is_that_which_found_the_scenario(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def search(subject: Subject, *_: object, seed: int, **__: object) -> SimpleNamespace:
        assert subject.generator is not None
        asked.append((subject.generator.hash, seed))
        return discovery()

    monkeypatch.setattr(module, "discover", search)
    found(subject, placed, tmp_path)
    assert asked == [(GENERATOR, placed.record.provenance.seed)]


def test_regions_that_still_fail_and_new_ones_are_told_apart(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: discovery((0.1, 0), (0.1, 1), (9.0, 0)))
    assert found(subject, placed, tmp_path)[1:] == [
        f"{placed.id} still fails: 75% of fresh draws nearby",
        "another region fails: 'right' taken for 'left' in 75% of fresh draws",
        "another region fails: 'left' taken for 'right' in 75% of fresh draws",
    ]


def test_a_model_without_failures_is_said_to_be_one(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: discovery())
    assert found(subject, placed, tmp_path)[1:] == [
        "none of the 1 regions that were compared was found to fail again",
        "no other region was confirmed",
    ]


def test_another_generators_regions_are_not_compared(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: discovery((0.1, 0), generator="d" * 64))
    assert "1 scenarios come from another generator and were not compared" in found(subject, placed, tmp_path)


def test_a_discovery_that_cannot_be_had_is_left_to_the_caller(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DefuseError("no generator")

    monkeypatch.setattr(module, "discover", refuse)
    with pytest.raises(DefuseError, match="no generator"):
        found(subject, placed, tmp_path)
