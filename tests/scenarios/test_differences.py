import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios import revisions
from pytest_defuse.scenarios.differences import Change, Difference, Side, details_of, difference
from pytest_defuse.scenarios.migration import migrate
from pytest_defuse.scenarios.revisions import Revision
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import SheetRecord, SplitVotes, StoreRecord, VotesRecord
from pytest_defuse.scenarios.sheets import Pixels, encode_sheet, pixel_hash
from pytest_defuse.scenarios.writing import canonical_text
from tests.scenarios.planting import (
    FIRST,
    SECOND,
    STORE,
    exclude,
    machine_of,
    plant,
    random_tiles,
    record_of,
    with_machine,
    with_predictions,
)
from tests.scenarios.repository import Repository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
EVIDENCE = {"nearest_images": [1], "nearest_labels": ["3"], "nearest_distances": [0.5], "source_labels": {}}
FORMAT_1 = Path(__file__).parents[2] / "fixtures" / "formats" / "1" / "digits"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def scenario(repository: Repository) -> Scenario:
    """A candidate that is committed on main."""
    planted = plant(repository.store, FIRST, SECOND)
    repository.commit()
    return planted


def compare(repository: Repository, base: str = "HEAD~1", head: str = "HEAD") -> Difference:
    place = revisions.Repository.around(repository.store.folder.parent)
    return difference(Revision(place, place.commit(base)), Revision(place, place.commit(head)))


def only(found: Difference) -> Change:
    assert len(found.changes) == 1
    return found.changes[0]


def repaint(scenario: Scenario, pixels: Pixels) -> None:
    """Other pictures for correction, and a scenario.yaml that says so."""
    sheets = scenario.record.sheets
    sheet = SheetRecord(images=len(pixels), sha256=pixel_hash(pixels), predicted={"5": len(pixels)})
    record = scenario.record.model_copy(update={"sheets": sheets.model_copy(update={"correction": sheet})})
    scenario.yaml.write_text(canonical_text(record))
    scenario.sheet_file("correction").write_bytes(encode_sheet(pixels))


def test_equal_revisions_do_not_differ(repository: Repository, scenario: Scenario) -> None:
    found = compare(repository, "HEAD", "main")
    assert not found
    assert (found.changes, found.shared, found.problems) == ((), (), ())


def test_an_added_scenario_comes_with_its_pictures(repository: Repository, scenario: Scenario) -> None:
    change = only(compare(repository))
    assert (change.subject, change.id, change.kinds, change.before) == ("digits", scenario.id, ("added",), None)
    assert change.details == (
        "candidate, proposed label 3",
        "held-out tiles classified as 5 (5), 3 (1)",
        "the model failed on 58/64 images when it was found",
    )
    assert change.after is not None
    assert change.after.path == PurePosixPath("fixtures/digits", scenario.id)
    np.testing.assert_array_equal(change.after.pixels["held_out"], SECOND)
    assert change.after.sheets["held_out"] == scenario.sheet_file("held_out").read_bytes()


def test_a_removed_scenario_is_shown_as_it_was(repository: Repository, scenario: Scenario) -> None:
    shutil.rmtree(scenario.folder)
    repository.commit()
    change = only(compare(repository))
    assert (change.kinds, change.after) == (("removed",), None)
    assert change.before is not None
    assert change.before.record == scenario.record


def test_a_label_and_a_status_that_changed(repository: Repository, scenario: Scenario) -> None:
    repository.store.update(scenario.id, status="accepted", label="3", notes="clear\nthrees")
    repository.commit()
    change = only(compare(repository))
    assert change.kinds == ("relabelled", "edited")
    assert change.details == ("status candidate -> accepted", "label (none) -> 3", "notes: clear threes")


def test_changed_pixels_are_counted_by_tile(repository: Repository, scenario: Scenario) -> None:
    other = FIRST.copy()
    other[1, 0, 3, 4] ^= 1
    other[3] = 0
    repaint(scenario, other)
    repository.commit()
    change = only(compare(repository))
    assert change.kinds == ("pixels changed", "edited")
    assert change.details[0] == "correction: 2 of 4 tiles changed: 1, 3"
    repaint(scenario, random_tiles(9))
    repository.commit()
    assert only(compare(repository)).details[0] == "correction: 4 tiles before, 9 now"


def test_a_png_that_was_only_optimised_did_not_change(repository: Repository, scenario: Scenario) -> None:
    from PIL import Image

    path = scenario.sheet_file("held_out")
    before = path.read_bytes()
    Image.open(path).save(path, compress_level=0)
    assert path.read_bytes() != before
    repository.commit()
    assert not compare(repository)


def test_votes_exclusions_and_budgets_are_said(repository: Repository, scenario: Scenario) -> None:
    repository.store.vote(scenario.id, "anna", {"correction": {0: "3"}})
    exclude(scenario, "correction", 2)
    path = repository.store.folder / "store.yaml"
    path.write_text(path.read_text().replace("tiles: 256", "tiles: 99"))
    repository.commit()
    found = compare(repository)
    assert only(found).kinds == ("edited",)
    assert only(found).details == ("correction: excluded tiles none -> 2", "votes: anna new")
    assert found.shared == ("fixtures/digits/store.yaml: budgets changed",)
    repository.store.vote(scenario.id, "anna", {"correction": {1: "3"}})
    repository.store.vote(scenario.id, "bob", {"correction": {1: "3"}})
    repository.commit()
    assert only(compare(repository)).details == ("votes: anna changed, bob new",)


def test_what_matters_most_comes_first(repository: Repository, scenario: Scenario) -> None:
    relabelled = plant(repository.store, SECOND, FIRST, "1", "2")
    removed = plant(repository.store, FIRST, random_tiles(seed=7), "1", "2")
    repository.commit()
    added = plant(repository.store, FIRST, random_tiles(seed=8), "9", "4")
    repository.store.update(relabelled.id, status="rejected")
    repository.store.update(scenario.id, notes="x")
    shutil.rmtree(removed.folder)
    repository.commit()
    found = compare(repository)
    assert [change.id for change in found.changes] == [added.id, removed.id, relabelled.id, scenario.id]


def test_what_cannot_be_read_is_a_problem_of_the_newer_revision(repository: Repository, scenario: Scenario) -> None:
    good = scenario.yaml.read_text()
    scenario.yaml.write_text(good.replace("failed: 58", "failed: many"))
    repository.commit()
    found = compare(repository)
    assert only(found).kinds == ("unreadable",)
    (problem,) = found.problems
    assert str(problem).startswith(
        f"fixtures/digits/{scenario.id}/scenario.yaml:10: failure_rate.failed: must be a whole number"
    )
    scenario.yaml.write_text(good)
    scenario.sheet_file("held_out").write_text("version https://git-lfs.github.com/spec/v1\n")
    repository.commit()
    (problem,) = compare(repository).problems
    assert "held_out.png is a Git LFS pointer" in str(problem)
    scenario.sheet_file("held_out").write_bytes(encode_sheet(SECOND))
    repository.commit()
    assert compare(repository).problems == ()


def test_a_pointer_is_followed_where_git_lfs_is_set_up(
    repository: Repository, scenario: Scenario, tmp_path: Path
) -> None:
    path = scenario.sheet_file("held_out")
    (tmp_path / "large").write_bytes(path.read_bytes())
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    (repository.folder / ".gitattributes").write_text("*.png filter=large\n")
    repository.commit()
    assert len(compare(repository).problems) == 1
    repository.git("config", "filter.large.smudge", f"cat '{tmp_path / 'large'}'")
    repository.store.update(scenario.id, notes="x")
    repository.commit()
    found = compare(repository)
    assert found.problems == ()
    after = only(found).after
    assert after is not None
    np.testing.assert_array_equal(after.pixels["held_out"], SECOND)


def test_other_folders_beside_the_stores_mean_nothing(repository: Repository, scenario: Scenario) -> None:
    deep = repository.folder / "fixtures" / "old" / "0" / "digits" / scenario.id
    shutil.copytree(scenario.folder, deep)
    shutil.copy(repository.store.folder / "store.yaml", deep.parent)
    (repository.folder / "fixtures" / "readme.txt").touch()
    (repository.store.folder / "notes").mkdir()
    (repository.store.folder / "notes" / "readme.txt").touch()
    repository.commit()
    assert not compare(repository)


def test_a_link_in_a_revision_is_not_followed(repository: Repository, scenario: Scenario, tmp_path: Path) -> None:
    path = scenario.sheet_file("held_out")
    path.rename(tmp_path / "elsewhere.png")
    path.symlink_to(tmp_path / "elsewhere.png")
    repository.commit()
    (problem,) = compare(repository).problems
    assert str(problem) == f"fixtures/digits/{scenario.id}/held_out.png is missing."


def test_the_working_tree_means_nothing(repository: Repository, scenario: Scenario) -> None:
    repository.commit()
    shutil.rmtree(repository.store.folder.parent)
    place = revisions.Repository.around(repository.folder / "fixtures")
    found = difference(Revision(place, place.commit("HEAD~2")), Revision(place, place.commit("HEAD")))
    assert [change.id for change in found.changes] == [scenario.id]
    assert repository.git("status", "--porcelain").count(" D ") > 0


def test_a_store_at_the_repositorys_root(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "fixtures")
    store = type(repository.store)(tmp_path / "fixtures" / "shades")
    plant(store, FIRST, SECOND)
    repository.commit()
    place = revisions.Repository.around(tmp_path / "fixtures")
    found = difference(Revision(place, place.commit("HEAD~1")), Revision(place, place.commit("HEAD")))
    assert [change.subject for change in found.changes] == ["shades"]


def test_what_left_the_base_is_compared_with_where_it_left(repository: Repository, scenario: Scenario) -> None:
    repository.branch("work")
    mine = plant(repository.store, FIRST, random_tiles(seed=5), "9", "4")
    repository.commit()
    repository.git("checkout", "--quiet", "main")
    plant(repository.store, FIRST, random_tiles(seed=6), "1", "2")
    repository.commit()
    place = revisions.Repository.around(repository.store.folder.parent)
    parted = place.merge_base(place.commit("main"), place.commit("work"))
    assert [change.id for change in compare(repository, parted, "work").changes] == [mine.id]
    assert len(compare(repository, "main", "work").changes) == 2


@pytest.mark.parametrize("name", ["nothing", "--help", "-x", "HEAD~99", "", "HEAD:fixtures"])
def test_a_revision_that_is_not_there_is_named(repository: Repository, name: str) -> None:
    place = revisions.Repository.around(repository.store.folder.parent)
    with pytest.raises(DefuseError) as caught:
        place.commit(name)
    assert str(caught.value).startswith(f"There is no git revision {name!r} here")


def test_outside_of_a_repository_git_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(DefuseError, match=r"^git rev-parse failed in .* \("):
        revisions.Repository.around(tmp_path / "fixtures")


def test_without_git_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DefuseError, match="git is not installed"):
        revisions.Repository.around(tmp_path)


def test_a_scenario_without_its_other_files_is_reported(repository: Repository) -> None:
    folder = repository.store.folder / record_of(FIRST, SECOND).id
    folder.mkdir()
    (folder / "scenario.yaml").write_text(canonical_text(record_of(FIRST, SECOND)))
    repository.commit()
    change = only(compare(repository))
    assert change.kinds == ("unreadable", "added")
    assert change.after is not None
    assert [str(problem).rpartition("/")[2] for problem in change.after.problems] == [
        "machine.json is missing.",
        "correction.png is missing.",
        "held_out.png is missing.",
    ]


def test_another_machine_json_is_an_edit_in_words(repository: Repository, scenario: Scenario) -> None:
    with_machine(with_predictions(scenario), evidence=EVIDENCE)
    repository.commit()
    change = only(compare(repository))
    assert change.kinds == ("edited",)
    assert change.details == ("correction: predicted changed", "held_out: predicted changed", "evidence changed")


def test_a_machine_json_of_another_commit_is_named(repository: Repository, scenario: Scenario) -> None:
    path = scenario.folder / "machine.json"
    path.write_text(path.read_text().replace("null", "[]"))
    repository.commit()
    (problem,) = compare(repository).problems
    assert "machine.json does not match the hash in scenario.yaml" in str(problem)


def test_a_migration_changes_nothing(repository: Repository) -> None:
    """Both revisions are read as the present format."""
    shutil.copytree(FORMAT_1, repository.store.folder, dirs_exist_ok=True)
    repository.commit()
    migrate([repository.store])
    repository.commit()
    found = compare(repository)
    assert (found.changes, found.problems) == ((), ())


def test_bounds_are_shown_before_and_after(repository: Repository, scenario: Scenario) -> None:
    for bounds in ({"min_accuracy": 0.0}, {"min_accuracy": 0.5}):
        repository.store.update(scenario.id, bounds=bounds)
        repository.commit()
    assert only(compare(repository)).details == ("bounds {'min_accuracy': 0} -> {'min_accuracy': 0.5}",)
    assert only(compare(repository, "HEAD~2", "HEAD~1")).details == ("bounds (none) -> {'min_accuracy': 0}",)


def leaves(record: BaseModel) -> Iterator[tuple[str, BaseModel]]:
    """Every single value in a record, with the record in which that value is another."""
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            for inner, changed in leaves(value):
                yield f"{name}.{inner}", record.model_copy(update={name: changed})
        else:
            other = {"other": 1} if isinstance(value, dict) else "other" if isinstance(value, str) else ("other",)
            yield name, record.model_copy(update={name: other})


def test_every_field_of_both_files_is_compared() -> None:
    parts: dict[str, Any] = {"predicted": ["5", "5", "5", "3"]}
    region = {"generator": "c" * 64, "weight": 0.25, "tau": 0.5, "mean": [0.5], "covariance": [[2]]}
    machine = machine_of(correction=parts, held_out=parts, region=region, evidence=EVIDENCE)
    votes = VotesRecord(format=2, annotator="anna", kind="human", correction=SplitVotes(sha256="a" * 64))
    side = Side(PurePosixPath("s"), record_of(FIRST, SECOND, machine=machine), machine, (votes,), {}, {}, ())
    # Formats do not matter, the folder has the id's name, and hashes are those of what is compared.
    implied = {"format", "id", "machine", "sheets.correction.images", "sheets.held_out.images"}
    assert side.record is not None
    others = [
        *((name, replace(side, record=changed)) for name, changed in leaves(side.record)),
        *((name, replace(side, machine=changed)) for name, changed in leaves(machine)),
        *((name, replace(side, votes=(changed,))) for name, changed in leaves(votes) if name not in implied),
    ]
    assert len(others) > 40
    assert {name for name, other in others if not list(details_of(side, other))} <= implied
    assert list(details_of(side, side)) == []


def test_every_field_of_store_yaml_is_compared(repository: Repository) -> None:
    path = repository.store.folder / "store.yaml"
    changes: dict[str, Any] = {
        "classes": ("a", "b"),
        "tile": STORE.tile.model_copy(update={"width": 9}),
        "budgets": STORE.budgets.model_copy(update={"tiles": 3}),
        "voting": STORE.voting.model_copy(update={"rho": 0.25}),
        "feature_names": {"0123456789ab": {"3": "stripes"}},
    }
    assert changes.keys() == StoreRecord.model_fields.keys() - {"format"}
    for name, value in changes.items():
        path.write_text(canonical_text(STORE.model_copy(update={name: value})))
        repository.commit()
        assert compare(repository).shared == (f"fixtures/digits/store.yaml: {name} changed",)
        path.write_text(canonical_text(STORE))
        repository.commit()


def test_what_could_not_be_read_before_is_a_change(repository: Repository, scenario: Scenario) -> None:
    good = scenario.yaml.read_text()
    scenario.yaml.write_text("format: [")
    repository.commit()
    scenario.yaml.write_text(good)
    repository.store.update(scenario.id, status="accepted", label="3")
    repository.commit()
    before, after, *_ = only(compare(repository)).details
    assert before.startswith(f"before: fixtures/digits/{scenario.id}/scenario.yaml:1: not valid YAML")
    assert after == "accepted, label 3"


def test_the_environment_of_git_is_ignored(
    repository: Repository, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.store.update(scenario.id, notes="x")
    repository.commit()
    expected = compare(repository)
    monkeypatch.chdir(repository.folder)
    other = Repository(tmp_path / "other")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"):
        monkeypatch.setenv(name, str(other.folder / ".git"))
    monkeypatch.setenv("GIT_NAMESPACE", "x")
    assert compare(repository).changes[0].details == expected.changes[0].details == ("notes: x",)
