import shutil
from pathlib import Path

import pytest

from pytest_defuse.cli import main
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.documents import read_document
from pytest_defuse.scenarios.migrations import STEPS
from pytest_defuse.scenarios.schema import FORMAT, ScenarioRecord
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify

SAMPLE = Path(__file__).parents[2] / "fixtures" / "formats" / "0"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of the store that the first format wrote."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copytree(SAMPLE, tmp_path / "fixtures")
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / "fixtures" / "digits")


def test_there_is_a_step_from_every_format_before_this_one() -> None:
    assert sorted(STEPS) == list(range(FORMAT))


def test_an_old_store_is_read_as_it_is(store: Store) -> None:
    before = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    (scenario,) = store.scenarios("accepted")
    assert (scenario.record.format, scenario.record.label) == (FORMAT, "2")
    assert len(scenario.pixels("correction")) == len(scenario.pixels("held_out")) == 8
    assert scenario.record.sheets.correction.predicted_tiles is None
    assert {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()} == before


def test_summaries_of_votes_are_kept_in_words(store: Store) -> None:
    assert store.scenarios()[0].record.notes.splitlines() == [
        "Written by the first version.",
        "Vote of anna (human): 2, agreement 0.9, none of the above on 1 tiles.",
        "Vote of judge 1 (model): no class, agreement 0.5, none of the above on 5 tiles.",
    ]


def test_an_old_format_is_a_warning_that_says_what_to_run(store: Store) -> None:
    problems = verify([store])
    assert [(Path(problem.file).name, problem.line, problem.warning) for problem in problems] == [
        ("store.yaml", 1, True),
        ("scenario.yaml", 1, True),
    ]
    assert problems[0].words == "format: 0 is older than the present 1: run pytest-defuse migrate."


def test_migrate_writes_the_present_format_once(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (scenario,) = store.scenarios()
    assert main(["migrate", "--check"]) == 1
    assert capsys.readouterr().out.count("is of format 0") == 2
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out.count("was of format 0") == 2
    document = read_document(scenario.yaml, ScenarioRecord)
    assert (document.format, document.canonical, document.record) == (FORMAT, True, scenario.record)
    assert store.scenarios() == [scenario]
    assert verify([store]) == []
    assert main(["migrate", "--check"]) == 0
    assert capsys.readouterr().out == "Every file is of format 1 and canonical.\n"


def test_migrate_writes_nothing_where_a_file_is_wrong(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = store.folders()[0] / "scenario.yaml"
    path.write_text(path.read_text().replace("failed: 230", "failed: 999"))
    before = (store.folder / "store.yaml").read_bytes()
    assert main(["migrate"]) == 2
    assert "failed is 999, but only 256 were drawn" in capsys.readouterr().err
    assert (store.folder / "store.yaml").read_bytes() == before


def test_the_errors_of_an_old_file_have_its_lines(store: Store) -> None:
    path = store.folders()[0] / "scenario.yaml"
    path.write_text(path.read_text().replace("drawn: 256", "drawn: none"))
    with pytest.raises(DefuseError, match=r"scenario\.yaml:9: failure_rate\.drawn: must be a whole number"):
        store.scenarios()


def test_the_sample_is_still_what_the_first_format_wrote() -> None:
    texts = [path.read_text() for path in SAMPLE.rglob("*.yaml")]
    assert len(texts) == 2
    assert all(text.startswith("format: 0\n") for text in texts)
