import re
import shutil
from pathlib import Path

import pytest

import pytest_defuse.scenarios.store as store_module
from pytest_defuse.cli import main
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.documents import Document, read_document
from pytest_defuse.scenarios.migrations import MIGRATIONS
from pytest_defuse.scenarios.problems import Problem, StoreError
from pytest_defuse.scenarios.schema import FORMAT, FileRecord, ScenarioRecord
from pytest_defuse.scenarios.store import Store, migrate, stores
from pytest_defuse.scenarios.verify import verify
from pytest_defuse.scenarios.writing import rewritten
from tests.scenarios.broken import edit

SAMPLES = Path(__file__).parents[2] / "fixtures" / "formats"
DEFUSE, BARLOW = "2-as-3-00e2ac", "8-as-3-b04682"
"""The scenarios of the format 1 sample."""


@pytest.fixture
def old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    """A copy of the store that was written in an old format."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copytree(SAMPLES / request.param, tmp_path / "fixtures")
    monkeypatch.chdir(tmp_path)
    return Store(Path("fixtures/digits"))


every_format = pytest.mark.parametrize("old_store", ["0", "1"], indirect=True)
format_0 = pytest.mark.parametrize("old_store", ["0"], indirect=True)
format_1 = pytest.mark.parametrize("old_store", ["1"], indirect=True)


def contents(folder: Path, pattern: str = "*") -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def test_there_is_a_step_from_every_format_before_this_one() -> None:
    assert sorted(MIGRATIONS) == list(range(FORMAT))


@pytest.mark.parametrize("number", ["0", "1"])
def test_the_samples_are_still_what_old_versions_wrote(number: str) -> None:
    texts = [path.read_text() for path in (SAMPLES / number).rglob("*.yaml")]
    assert len(texts) >= 2
    assert all(f"\nformat: {number}\n" in f"\n{text}" for text in texts)


@every_format
def test_an_old_store_is_read_and_not_changed(old_store: Store) -> None:
    before = contents(old_store.folder)
    (scenario,) = old_store.scenarios("accepted")
    assert (scenario.record.format, scenario.record.label) == (FORMAT, "2")
    assert len(scenario.pixels("correction")) == 8
    assert scenario.machine.region is not None
    assert all(problem.warning for problem in verify([old_store]))
    assert contents(old_store.folder) == before


@format_0
def test_predictions_by_tile_were_not_always_recorded(old_store: Store) -> None:
    (scenario,) = old_store.scenarios()
    assert scenario.machine.correction.predicted is None
    assert scenario.counts("correction") == {"3": 9}


@format_0
def test_summaries_of_votes_are_kept_in_words(old_store: Store) -> None:
    assert old_store.scenarios()[0].record.notes.splitlines() == [
        "Written by the first version.",
        "Vote of anna (human): 2, agreement 0.9, none of the above on 1 tiles.",
        "Vote of judge 1 (model): no class, agreement 0.5, none of the above on 5 tiles.",
    ]


@format_1
def test_what_nobody_reads_in_scenario_yaml_is_in_machine_json(old_store: Store) -> None:
    machine = old_store.get(DEFUSE).machine
    assert machine.correction.predicted == ("3", "3", "3", "2", "3", "2", "3", "3", "3")
    assert machine.region is not None
    assert len(machine.region.covariance) == 16
    assert machine.evidence is not None
    assert machine.evidence.source_labels == {"2": 102, "3": 14, "8": 6}
    assert old_store.get(DEFUSE).counts("correction") == {"3": 6, "2": 2}


@format_1
def test_the_rule_and_what_the_model_predicts_become_the_description(old_store: Store) -> None:
    defuse, barlow = (old_store.get(name).record for name in (DEFUSE, BARLOW))
    assert (defuse.method, defuse.base_error_rate) == ("defuse", None)
    assert defuse.description == "Images of 2 that the model classifies as 3."
    assert (barlow.method, barlow.base_error_rate) == ("barlow", 0.0625)
    assert barlow.description == "label 8: feature 3 > 0.5 (resnet, 3f2a91c0de12)"


@format_1
def test_the_old_default_budget_of_bytes_becomes_the_new_one(old_store: Store) -> None:
    assert old_store.record().budgets.sheet_bytes == 2**21
    edit(old_store.folder / "store.yaml", "1048576", "500000")
    assert old_store.record().budgets.sheet_bytes == 500_000


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

    monkeypatch.setattr(store_module, "rewritten", but_for_the_last)
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


@format_1
def test_a_label_leaves_an_old_file_in_its_format(old_store: Store) -> None:
    path = old_store.folder / BARLOW / "scenario.yaml"
    before = path.read_text()
    assert main(["label", BARLOW, "--label", "8"]) == 0
    assert path.read_text() == before.replace('"candidate"\nlabel: null', '"accepted"\nlabel: "8"')
    assert not (path.parent / "machine.json").exists()
    assert old_store.get(BARLOW).record.label == "8"


@format_0
def test_what_an_old_format_holds_otherwise_cannot_be_changed(old_store: Store) -> None:
    """Its notes are put together with the summaries of votes."""
    (scenario,) = old_store.scenarios()
    before = contents(old_store.folder, "*.yaml")
    with pytest.raises(DefuseError, match=r"scenario\.yaml cannot be rewritten without changing what it holds: edit"):
        old_store.update(scenario.id, notes="new")
    assert contents(old_store.folder, "*.yaml") == before


@pytest.mark.parametrize(
    ("old", "new", "start", "problem"),
    [
        ("drawn: 256", "drawn: none", "  drawn:", "failure_rate.drawn: must be a whole number"),
        ("[0, 1, 2, 4", "[0, 1, 2, 2", "    predicted_tiles:", "predicted_tiles must name each tile, from 0, once"),
        ("[0, 1, 2, 4", "[0, 1, 2, x", "    predicted_tiles:", "predicted_tiles must name each tile, from 0, once"),
        ("[3, 5]", "[3]", "    predicted_tiles:", "predicted_tiles must name each tile, from 0, once"),
        ("tau: 0.5", "tau: 0", "  tau:", "region.tau: must be > 0"),
        ("rule: null", "ruel: null", "  ruel:", "method.ruel: is not a known key"),
        ('name: "defuse"', "name: magic", "method:", "method: must be 'defuse'"),
        ('labels: ["2"', 'labels: ["owl"', "  nearest_labels:", "evidence.nearest_labels: 'owl' is not one of the cl"),
    ],
)
@format_1
def test_the_errors_of_an_old_file_have_its_lines(
    old_store: Store, old: str, new: str, start: str, problem: str
) -> None:
    path = old_store.folder / DEFUSE / "scenario.yaml"
    edit(path, old, new)
    with pytest.raises(DefuseError) as caught:
        old_store.get(DEFUSE)
    lines = [number for number, line in enumerate(path.read_text().splitlines(), 1) if line.startswith(start)]
    assert str(caught.value).startswith(f"{path}:{lines[0]}: ")
    assert problem in str(caught.value)


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
