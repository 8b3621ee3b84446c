import re
import shutil
from pathlib import Path

import pytest

import pytest_defuse.scenarios.migration as migration_module
from pytest_defuse.cli import main
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.documents import Document, read_document
from pytest_defuse.scenarios.lookup import stores
from pytest_defuse.scenarios.migration import migrate
from pytest_defuse.scenarios.problems import Problem, StoreError
from pytest_defuse.scenarios.schema import FORMAT, FileRecord, ScenarioRecord
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from pytest_defuse.scenarios.writing import rewritten
from tests.contents import contents
from tests.scenarios.broken import edit
from tests.scenarios.old_stores import BARLOW, DEFUSE, SAMPLES, every_format, format_1


@every_format
def test_migrate_writes_the_present_format_once(old_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sheets, scenarios = contents(old_store.folder, "*.png"), old_store.scenarios()
    votes = [scenario.votes() for scenario in scenarios]
    files = [str(path) for path, _ in old_store.files()]
    number = read_document(*next(iter(old_store.files()))).format
    assert main(["migrate", "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [f"{file} is of format {number}" for file in files]
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{file} was of format {number}" for file in files]
    assert old_store.scenarios() == scenarios
    assert [scenario.votes() for scenario in scenarios] == votes
    assert contents(old_store.folder, "*.png") == sheets
    assert all(len(scenario.yaml.read_text().splitlines()) < 45 for scenario in scenarios)
    assert verify([old_store]) == []
    after = contents(old_store.folder)
    assert main(["migrate", "--check"]) == 0
    assert capsys.readouterr().out == "Every file is of format 2.\n"
    assert main(["migrate"]) == 0
    assert contents(old_store.folder) == after


@every_format
def test_migrate_writes_nothing_where_a_file_is_wrong(old_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = old_store.folders()[0] / "scenario.yaml"
    edit(path, "drawn: 256", "drawn: 2")
    before = contents(old_store.folder)
    assert main(["migrate"]) == 2
    assert "but only 2 were drawn" in capsys.readouterr().err
    assert contents(old_store.folder) == before


@format_1
def test_migrate_writes_nothing_where_a_file_of_the_last_store_cannot_be_rewritten(
    old_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(old_store.folder, "fixtures/letters")
    last = f"fixtures/letters/{BARLOW}/scenario.yaml"

    def but_for_the_last(document: Document[FileRecord]) -> Document[FileRecord]:
        if document.file == last:
            raise StoreError([Problem(last, "cannot be rewritten.")])
        return rewritten(document)

    monkeypatch.setattr(migration_module, "rewritten", but_for_the_last)
    before = contents(Path("fixtures"), "[!.]*")
    assert main(["migrate"]) == 2
    assert capsys.readouterr().err == f"{last} cannot be rewritten.\n"
    with pytest.raises(DefuseError, match="cannot be rewritten"):
        migrate(stores(Path("fixtures")))
    assert contents(Path("fixtures"), "[!.]*") == before


@format_1
@pytest.mark.parametrize("name", [".", DEFUSE, f"{DEFUSE}/votes", ".schema"])
def test_migrate_follows_no_link_out_of_the_store(
    old_store: Store, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, outside = old_store.folder / name, tmp_path / "outside"
    folder.mkdir(exist_ok=True)
    folder.rename(outside)
    folder.symlink_to(outside, target_is_directory=True)
    before = contents(outside)
    assert main(["migrate"]) == 2
    assert capsys.readouterr().err == f"{folder} is a symbolic link: put the folder itself in its place.\n"
    assert contents(outside) == before


@pytest.mark.parametrize("ending", ["", ".machine.json.*\n"])
@format_1
def test_migrate_replaces_a_gitignore_of_an_older_version(old_store: Store, ending: str) -> None:
    path = old_store.folder / ".gitignore"
    head = "# Written by pytest-defuse: its lock, and what an interrupted write leaves.\n.lock\n.new-*\n.*.yaml.*\n"
    path.write_text(head + ending)
    assert main(["migrate"]) == 0
    assert path.read_text() == f"{head}.*.json.*\n..git*\n"
    assert path.read_text() == (SAMPLES.parent / "digits" / ".gitignore").read_text()
    path.write_text(f"{path.read_text()}notes\n")
    assert main(["migrate"]) == 0
    assert path.read_text().endswith("notes\n")


@format_1
def test_migrate_changes_no_number(old_store: Store) -> None:
    """Nine digits would make this covariance singular."""
    path = old_store.folder / DEFUSE / "scenario.yaml"
    edit(path, "bounds: {}", "bounds: {min_accuracy: 0.9333333333333333, max_increase: 1e-7}")
    edit(path, "tau: 0.5", "tau: 0.5000000004999")
    almost_singular = "  mean: [0, 0.1]\n  covariance: [[1, 0.9999999999], [0.9999999999, 1]]\n"
    path.write_text(re.sub(r"(?s)  mean:.*", almost_singular, path.read_text()))
    before = old_store.get(DEFUSE)
    assert main(["migrate"]) == 0
    assert old_store.get(DEFUSE) == before
    assert before.machine.region is not None
    assert before.machine.region.tau == 0.5000000004999
    assert verify([old_store]) == []


@format_1
def test_comments_stay_at_their_keys(old_store: Store) -> None:
    path = old_store.folder / DEFUSE / "scenario.yaml"
    for old, new in [
        ("format: 1", "# reviewed in May\nformat: 1"),
        ('label: "2"', 'label: "2"  # closed loops'),
        ("bounds: {}", "bounds:  # stricter than the test's\n  # agreed with Anna\n  min_accuracy: 0.95"),
        ("  low: 0.96", "  # Wilson\n  low: 0.96"),
        ('    predicted_tiles:\n      "3"', '    predicted_tiles:  # most are threes\n      # all of them\n      "3"'),
        ("    excluded: [4]", "    # it could be a z\n    excluded: [4]  # or a 7 # or both"),
        ("method:", "# how it was found\nmethod:"),
        ("  covariance:", "  # rounded\n  covariance:"),
    ]:
        edit(path, old, new)
    record = old_store.get(DEFUSE).record
    with path.open("a") as file:
        file.write("# the end")
    edit(old_store.folder / "store.yaml", "voting:", "# two thirds\nvoting:")
    assert main(["migrate"]) == 0
    assert old_store.get(DEFUSE).record == record
    lines = path.read_text().splitlines()
    assert lines[1:3] == ["# reviewed in May", "format: 2"]
    assert 'label: "2"  # closed loops' in lines
    at = lines.index("bounds: {min_accuracy: 0.95}  # stricter than the test's")
    assert lines[at - 1] == "# agreed with Anna"
    assert lines[at + 1] == "# Wilson"
    at = lines.index("    excluded: [4]  # or a 7 # or both")
    assert lines[at - 3 : at] == ["    # most are threes", "    # all of them", "    # it could be a z"]
    assert lines[lines.index('method: "defuse"') - 1] == "# how it was found"
    assert lines[-2:] == ["# rounded", "# the end"]
    store_lines = (old_store.folder / "store.yaml").read_text().splitlines()
    assert store_lines[store_lines.index("# two thirds") + 1].startswith("voting: {")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('notes: ""', "notes: |  # why\n  a", 'notes: "a\\n"  # why'),
        ('notes: ""', 'notes: "a"# why', 'notes: "a"  # why'),
        ("excluded: [4]", "excluded: [4,# why\n    ]", "    excluded: [4]  # why"),
        (
            "$schema=../.schema/scenario.json",
            "$schema=https://x.org/s",
            "# yaml-language-server: $schema=https://x.org/s",
        ),
    ],
)
@format_1
def test_comments_stay_in_every_place(old_store: Store, old: str, new: str, line: str) -> None:
    path = old_store.folder / DEFUSE / "scenario.yaml"
    edit(path, old, new)
    record = old_store.get(DEFUSE).record
    assert main(["migrate"]) == 0
    assert old_store.get(DEFUSE).record == record
    lines = path.read_text().splitlines()
    assert line in lines
    assert lines[0] == "# yaml-language-server: $schema=../.schema/scenario.json"


@format_1
def test_comments_stay_at_their_keys_whatever_ends_a_line(old_store: Store) -> None:
    path = old_store.folder / DEFUSE / "scenario.yaml"
    edit(path, 'label: "2"', 'label: "2"  # closed loops')
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert main(["migrate"]) == 0
    assert 'label: "2"  # closed loops' in path.read_text().splitlines()


@format_1
def test_a_text_that_looks_like_a_comment_is_none(old_store: Store) -> None:
    path = old_store.folder / DEFUSE / "scenario.yaml"
    edit(path, 'notes: ""', "notes: |\n  # not a comment\n  Twos # neither")
    assert main(["migrate"]) == 0
    assert old_store.get(DEFUSE).record.notes == "# not a comment\nTwos # neither\n"
    assert len([line for line in path.read_text().splitlines() if line.lstrip().startswith("#")]) == 1
    assert read_document(path, ScenarioRecord).format == FORMAT
