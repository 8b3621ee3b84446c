"""Branches that work on a store at once merge without conflict."""

import shutil
from pathlib import Path

import pytest

from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from tests.scenarios.planting import plant, random_tiles
from tests.scenarios.repository import Repository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_branches_that_add_scenarios(repository: Repository) -> None:
    store = repository.store
    for number, name in enumerate(["one", "two", "three"]):
        repository.branch(name)
        for seed in range(2):
            tiles = (random_tiles(seed=100 * number + 10 * seed + part) for part in range(2))
            plant(store, *tiles)
        repository.commit()
    repository.merge("one", "two", "three")
    assert len(store.scenarios()) == 6
    assert verify([store]) == []
    assert repository.git("status", "--porcelain") == ""


def test_branches_that_start_the_store(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repository")
    for number, name in enumerate(["one", "two"]):
        repository.branch(name)
        store = Store(repository.folder / "fixtures" / "pets")
        tiles = (random_tiles(seed=10 * number + part) for part in range(2))
        plant(store, *tiles, "cat", "dog", ("cat", "dog"))
        repository.commit()
    repository.merge("one", "two")
    assert len(Store(repository.folder / "fixtures" / "pets").scenarios()) == 2


def test_branches_on_which_people_vote_label_and_discover(repository: Repository) -> None:
    store = repository.store
    scenario = plant(store, random_tiles(), random_tiles(seed=1))
    repository.commit()
    for name, tile in (("anna", 0), ("bob", 0)):
        repository.branch(name)
        store.vote(scenario.id, name, {"correction": {tile: "3"}})
        repository.commit()
    repository.branch("label")
    text = scenario.yaml.read_text()
    scenario.yaml.write_text(text.replace('status: "candidate"\nlabel: null', "status: accepted\nlabel: 3"))
    repository.commit()
    repository.branch("discover")
    plant(store, random_tiles(seed=2), random_tiles(seed=3), "8", "2")
    repository.commit()
    repository.merge("anna", "bob", "label", "discover")
    merged = store.get(scenario.id)
    assert (merged.record.status, merged.record.label) == ("accepted", "3")
    assert [vote.annotator for vote in merged.votes()] == ["anna", "bob"]
    assert len(store.scenarios()) == 2
    assert verify([store]) == []


def test_nothing_that_only_this_machine_needs_is_committed(repository: Repository) -> None:
    store = repository.store
    scenario = plant(store, random_tiles(), random_tiles(seed=1))
    names = ("store.yaml", ".gitignore", ".gitattributes", ".schema/store.json")
    for path in (*map(store.folder.joinpath, names), scenario.yaml, scenario.folder / "machine.json"):
        path.with_name(f".{path.name}.0a1b2c3d").touch()
    repository.commit()
    files = repository.git("ls-files", "fixtures").split()
    assert not [name for name in files if ".lock" in name or ".new-" in name or "0a1b" in name]
    assert repository.git("status", "--porcelain") == ""
