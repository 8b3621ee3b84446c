import pytest

from pytest_defuse.cli import main
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.old_formats import MIGRATIONS
from pytest_defuse.scenarios.schema import FORMAT
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from tests.contents import contents
from tests.scenarios.broken import edit
from tests.scenarios.old_stores import BARLOW, DEFUSE, SAMPLES, every_format, format_0, format_1


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
