"""Writers follow no symbolic link out of a store, and remove only what writers made."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.migration import migrate
from pytest_defuse.scenarios.store import Store
from tests.contents import contents
from tests.scenarios.planting import FIRST, SECOND, STORE, plant, random_tiles, record_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="symbolic links of POSIX")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder out of the store, with a file in it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    return tmp_path / "elsewhere"


ID = record_of(FIRST, SECOND).id
OTHER_ID = record_of(random_tiles(seed=2), random_tiles(seed=3), "8", "2").id


def label(store: Store) -> None:
    store.update(ID, status="accepted", label="3")


def vote(store: Store) -> None:
    store.vote(ID, "anna", {"correction": {0: "3"}})


def add(store: Store) -> None:
    plant(store, random_tiles(seed=2), random_tiles(seed=3), "8", "2")


def migrated(store: Store) -> None:
    migrate([store])


def reopened(store: Store) -> None:
    store.open_for(STORE)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        (".schema", migrated),
        (".schema/store.json", migrated),
        (".lock", label),
        ("store.yaml", reopened),
        (ID, label),
        (f"{ID}/scenario.yaml", label),
        (f"{ID}/votes", vote),
        (f"{ID}/votes/anna.yaml", vote),
        (OTHER_ID, add),
    ],
)
def test_nothing_is_written_through_a_link(
    store: Store, elsewhere: Path, name: str, write: Callable[[Store], None], exists: bool
) -> None:
    vote(store)
    link, target = store.folder / name, elsewhere / "target"
    if link.exists() and exists:
        link.rename(target)
    elif link.exists():
        link.rename(elsewhere / "moved")
    elif exists:
        target.mkdir()
    link.symlink_to(target)
    before = contents(elsewhere)
    with pytest.raises(DefuseError):
        write(store)
    assert contents(elsewhere) == before


def test_the_lock_of_a_store_is_never_a_link(store: Store, elsewhere: Path) -> None:
    (store.folder / ".lock").unlink()
    (store.folder / ".lock").symlink_to(elsewhere / "precious")
    with pytest.raises(DefuseError, match=r"\.lock is a symbolic link: put the file itself in its place"):
        label(store)
    assert (elsewhere / "precious").read_text() == "mine"


@pytest.mark.parametrize("name", [".gitignore", ".gitattributes"])
def test_a_linked_file_of_git_stays(store: Store, elsewhere: Path, name: str) -> None:
    for target in ("precious", "missing"):
        (store.folder / name).unlink()
        (store.folder / name).symlink_to(elsewhere / target)
        label(store)
        assert (store.folder / name).is_symlink()
    assert contents(elsewhere) == {"precious": b"mine"}


def test_writers_remove_nothing_of_other_programs(store: Store, elsewhere: Path) -> None:
    folder = store.folders()[0]
    kept = [
        folder / ".scenario.yaml.swp",
        folder / ".scenario.yaml.un~",
        folder / ".scenario.yaml.backup00",
        folder / "votes" / ".anna.yaml.swp",
        store.folder / ".new-features" / "notes.txt",
        store.folder / ".new-ideas12" / "a" / "scenario.yaml.bak",
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (elsewhere / "votes").mkdir()
    (elsewhere / ".scenario.yaml.0123abcd").write_text("mine")
    (elsewhere / "votes" / ".anna.yaml.0123abcd").write_text("mine")
    (store.folder / "linked").symlink_to(elsewhere)
    (store.folder / ".new-0123abcd").symlink_to(elsewhere)
    before = contents(elsewhere)
    vote(store)
    assert all(path.read_text() == "mine" for path in kept)
    assert contents(elsewhere) == before
    assert (store.folder / ".new-0123abcd").is_symlink()


def test_writers_remove_what_killed_writers_left(store: Store) -> None:
    folder = store.folders()[0]
    left = [
        folder / ".scenario.yaml.0123abcd",
        folder / ".machine.json.0123abcd",
        folder / "votes" / ".anna.yaml.0123abcd",
        store.folder / ".store.yaml.0123abcd",
        store.folder / ".schema" / ".votes.json.0123abcd",
        store.folder / ".new-abcd_123" / "3-as-5-000000" / "held_out.png",
        store.folder / ".new-abcd_124" / "3-as-5-000000" / ".correction.png.0123abcd",
        store.folder / ".new-abcd_124" / "3-as-5-000000" / "machine.json",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (store.folder / ".new-abcd_125").mkdir()
    vote(store)
    assert not any(path.exists() for path in left)
    assert list(store.folder.glob(".new-*")) == []
