"""Which of several confirmed regions are written, which are known, and what is said about the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pytest_defuse import Subject
from pytest_defuse.discover import discovery as module
from pytest_defuse.discover.candidates import store_candidates
from pytest_defuse.discover.discovery import Discovery, discover
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.discover.summary import discovery_result
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.store import Store
from tests.discover.synthetic_halves import BrighterHalf, HalvesGenerator
from tests.discover.test_confirmation import IMAGES, WrongIfClose, region
from tests.recorder import Recorder

REGIONS = [region(1.0, 0.1, weight=0.5), region(-1.0, 0.1, label=0, weight=0.3), region(0.4, 0.05, weight=0.2)]
SUBJECT = Subject("halves", WrongIfClose(), ["right", "left"], IMAGES, IMAGES, judges=[BrighterHalf()])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store" / "halves")


@pytest.fixture
def discovered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store) -> Callable[..., Discovery]:
    def run(candidates: int = 1, **changes: Any) -> Discovery:
        monkeypatch.setattr(module, "trained_generator", lambda *_, **__: HalvesGenerator())
        monkeypatch.setattr(module, "distill", lambda *_: REGIONS)
        settings = DiscoverySettings(budget=80, tiles=20, candidates=candidates)
        return discover(SUBJECT, settings, cache=tmp_path / "cache", **{"store": store, **changes})

    return run


@pytest.mark.parametrize("status", ["candidate", "rejected"])
def test_every_confirmed_region_is_written_in_the_end(
    discovered: Callable[..., Discovery], store: Store, status: str
) -> None:
    """With a maximum of one candidate, the second run writes the second region: those in the store do not count."""
    written = []
    for run in range(3):
        found = discovered()
        stored = store_candidates(store, SUBJECT, found)
        result = discovery_result(found, stored, SUBJECT, SUBJECT.classifier(), seconds=1.0, details=False)
        (new,) = stored.new
        assert result.confirmed == 3
        assert (len(found.known), len(found.left_out)) == (run, 2 - run)
        assert set(result.known) == set(written)
        assert len(result.left_out) == 2 - run
        written.append(store.update(new.id, status=status).id)
        if run == 0:
            assert any(sentence.startswith("right as left (") for sentence in result.left_out)
            assert all("beyond the maximum number of candidates" in sentence for sentence in result.left_out)
    assert len(set(written)) == 3
    last = discovered()
    assert (last.candidates, last.left_out) == ((), ())
    assert store_candidates(store, SUBJECT, last).new == ()


def test_a_region_has_the_same_images_whatever_is_in_the_store(
    discovered: Callable[..., Discovery], store: Store
) -> None:
    store_candidates(store, SUBJECT, discovered())
    (second,) = discovered().candidates
    store_candidates(store, SUBJECT, discovered(store=None))
    assert torch.equal(discovered().candidates[0].held_out, second.held_out)


def test_a_candidate_whose_images_fail_too_rarely_is_not_written_but_named(
    discovered: Callable[..., Discovery], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def easy(*_: object) -> tuple[Tensor, int]:
        """Sheets of 20 images each, of which the model gets 9 and 11 wrong."""
        wrong = torch.tensor([[0.5, -0.5]]).repeat(20, 1)
        right = torch.tensor([[3.0, -3.0]]).repeat(20, 1)
        return HalvesGenerator().decode(torch.cat([wrong[:11], right[:9], wrong[:9], right[:11]])), 40

    monkeypatch.setattr(module, "sheet_images", easy)
    found = discovered()
    assert found.candidates == ()
    assert len(found.below_rate) == 3
    stored = store_candidates(store, SUBJECT, found)
    assert len(stored.left_out) == 3
    assert all(sentence.endswith("no more than 50% of the images on a sheet fail") for sentence in stored.left_out)
    assert not store.folder.exists()


def test_a_full_store_is_noticed_before_the_search(discovered: Callable[..., Discovery], store: Store) -> None:
    store_candidates(store, SUBJECT, discovered())
    path = store.folder / "store.yaml"
    path.write_text(path.read_text().replace("scenarios: 100", "scenarios: 1"))
    progress = Recorder()
    with pytest.raises(DefuseError, match=r"store\.yaml: the store has 1 scenarios, and its budgets\.scenarios is 1"):
        discovered(progress=progress)
    assert progress.titles == []


def test_no_more_candidates_than_the_store_has_room_for(discovered: Callable[..., Discovery], store: Store) -> None:
    store_candidates(store, SUBJECT, discovered())
    path = store.folder / "store.yaml"
    path.write_text(path.read_text().replace("scenarios: 100", "scenarios: 2"))
    found = discovered(candidates=12)
    assert (len(found.known), len(found.candidates), len(found.left_out)) == (1, 1, 1)


def test_a_store_that_cannot_take_the_candidates_is_noticed_before_the_search(
    discovered: Callable[..., Discovery], store: Store, tmp_path: Path
) -> None:
    progress = Recorder()
    (tmp_path / "file").touch()
    with pytest.raises(DefuseError, match="Candidates cannot be written to"):
        discovered(store=Store(tmp_path / "file" / "halves"), progress=progress)
    store_candidates(store, SUBJECT, discovered())
    path = store.folder / "store.yaml"
    path.write_text(path.read_text().replace('"left"', '"other"').replace("left\n", "other\n"))
    with pytest.raises(DefuseError, match="but the subject has others"):
        discovered(progress=progress)
    assert progress.titles == []


def test_nothing_is_created_before_there_are_candidates(
    discovered: Callable[..., Discovery], store: Store, tmp_path: Path
) -> None:
    discovered()
    assert not store.folder.parent.exists()
