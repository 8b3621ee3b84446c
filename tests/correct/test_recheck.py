from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pytest_defuse.correct.recheck as module
from pytest_defuse.correct.recheck import recheck
from pytest_defuse.discover import confirmation
from pytest_defuse.discover.generator import cached_generator
from pytest_defuse.discover.regions import Region
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.subject.subject import Subject
from tests.scenarios.planting import with_machine

GENERATOR = "c" * 64
COVARIANCE = ((1.0, 0.0), (0.0, 1.0))


def findings(subject: Subject, scenario: Scenario, tmp_path: Path) -> list[str]:
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
    return with_machine(scenario, region=region)


@pytest.fixture(autouse=True)
def generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator is in the cache."""
    monkeypatch.setattr(module, "cached_generator", lambda *_: SimpleNamespace(hash=GENERATOR))


class Journal:
    def remove(self) -> None: ...


def region_at(x: float, label: int, failed: int = 48, confirmed: bool = True) -> confirmation.TestedRegion:
    """A region at a coordinate, of whose 64 draws so many fail."""
    region = Region(np.full(2, x), np.eye(2), 0.5, label, 1 - label, 0.5)
    return confirmation.TestedRegion(region, failed, 64, p_value=0.01, coverage=0.1, confirmed=confirmed)


def discovery(*regions: confirmation.TestedRegion, generator: str = GENERATOR) -> SimpleNamespace:
    """A discovery that tested these regions, and whose maximum number of candidates is one."""
    return SimpleNamespace(
        candidates=regions[:1], failures=80, regions=regions, generator_hash=generator, journal=Journal()
    )


def test_without_a_region_there_is_no_search(
    subject: Subject, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: pytest.fail("nothing to compare with"))
    (sentence,) = findings(subject, scenario, tmp_path)
    assert sentence == "not searched again: no accepted scenario has a region in latent space"


def test_without_the_generator_there_is_no_search(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: pytest.fail("it would train a generator"))
    monkeypatch.setattr(module, "cached_generator", cached_generator)
    (sentence,) = findings(subject, placed, tmp_path)
    assert sentence == f"not searched again: the generators of its scenarios are not in the cache {tmp_path.name}"


def test_the_search_uses_the_scenarios_generator_and_seed(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def search(subject: Subject, *_: object, seed: int, **__: object) -> SimpleNamespace:
        assert subject.generator is not None
        used.append((subject.generator.hash, seed))
        return discovery()

    monkeypatch.setattr(module, "discover", search)
    findings(subject, placed, tmp_path)
    assert used == [(GENERATOR, placed.record.provenance.seed)]


def test_regions_that_still_fail_differ_from_new_ones(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "discover", lambda *_, **__: discovery(region_at(0.1, 0), region_at(0.1, 1), region_at(9, 0))
    )
    assert findings(subject, placed, tmp_path)[1:] == [
        f"{placed.id} still fails: 75% of fresh draws nearby",
        "a new region fails: 'right' classified as 'left' in 75% of fresh draws",
        "a new region fails: 'left' classified as 'right' in 75% of fresh draws",
    ]


def test_every_confirmed_region_is_reported_beyond_the_maximum_of_candidates(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = [region_at(5.0 * number, 1) for number in range(1, 31)]
    nearby = region_at(0.1, 0), region_at(0.2, 0, failed=40), region_at(0, 0, failed=63, confirmed=False)
    monkeypatch.setattr(module, "discover", lambda *_, **__: discovery(*elsewhere, *nearby))
    searched, *others = findings(subject, placed, tmp_path)
    assert "33 regions, 32 confirmed" in searched
    assert others == [
        f"{placed.id} still fails: 75% of fresh draws nearby",
        *["a new region fails: 'right' classified as 'left' in 75% of fresh draws"] * 30,
    ]


def test_a_model_without_failures_is_reported(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: discovery())
    assert findings(subject, placed, tmp_path)[1:] == [
        "none of the 1 compared regions fails again",
        "no new region was confirmed",
    ]


def test_another_generators_regions_are_not_compared(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "discover", lambda *_, **__: discovery(region_at(0.1, 0), generator="d" * 64))
    assert "1 scenarios come from another generator and were not compared" in findings(subject, placed, tmp_path)


def test_an_error_of_the_discovery_is_raised(
    subject: Subject, placed: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DefuseError("no generator")

    monkeypatch.setattr(module, "discover", refuse)
    with pytest.raises(DefuseError, match="no generator"):
        findings(subject, placed, tmp_path)
