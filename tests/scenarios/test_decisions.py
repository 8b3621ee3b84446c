import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.scenarios.decisions import agreement_table, decide_by_votes, tally
from pytest_defuse.scenarios.machine import MachineRecord
from pytest_defuse.scenarios.schema import FORMAT, ScenarioRecord, SplitVotes, VotesRecord, Voting
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import exclude, machine_of, plant, random_tiles, record_of

CLASSES = ["3", "5", "8"]
TILES = 6


def scenario(
    predicted: str = "555553", excluded: tuple[int, ...] = (), recorded: bool = True
) -> tuple[ScenarioRecord, MachineRecord]:
    """A scenario with these predictions for its correction tiles."""
    record = record_of(random_tiles(TILES), random_tiles(seed=1))
    sheets = record.sheets.model_dump()
    sheets["correction"] |= {"predicted": Counter(predicted), "excluded": excluded}
    tiles = {"predicted": tuple(predicted)} if recorded else {}
    return ScenarioRecord.model_validate(record.model_dump() | {"sheets": sheets}), machine_of(correction=tiles)


def vote(who: str, answers: str, kind: str = "human") -> VotesRecord:
    """Votes on the first tiles, a character each: ``-`` for none of the above, a space for no vote."""
    votes = {tile: None if name == "-" else name for tile, name in enumerate(answers) if name != " "}
    sha256 = scenario()[0].sheets.correction.sha256
    return VotesRecord(
        format=FORMAT, annotator=who, kind=kind, correction=SplitVotes.of(sha256, votes, CLASSES), held_out=None
    )


def votes(*answers: str) -> list[VotesRecord]:
    return [vote(f"person{number}", answer) for number, answer in enumerate(answers)]


def test_most_tiles_of_another_class_than_the_model_says_are_a_scenario() -> None:
    result = tally(*scenario(), votes("333333", "333335", "333533"), Voting())
    assert (result.outcome, result.label, result.reason) == ("scenario", "3", "the model is wrong on 5 of 6 tiles")
    assert result.voters == ("person0", "person1", "person2")
    assert result.remarks == []


@pytest.mark.parametrize(
    ("predicted", "rho", "outcome"),
    [
        ("555333", 0.5, "no scenario"),  # exactly rho is not more than rho
        ("555533", 0.5, "scenario"),
        ("555533", 0.7, "no scenario"),
        ("333333", 0.0, "no scenario"),
        ("533333", 0.0, "scenario"),
    ],
)
def test_more_than_rho_must_disagree_with_the_model(predicted: str, rho: float, outcome: str) -> None:
    assert tally(*scenario(predicted), votes("333333"), Voting(rho=rho)).outcome == outcome


def test_the_majority_labels_each_tile_and_ties_are_shown() -> None:
    result = tally(*scenario(), votes("335-", "333-", "535 ", "5-8-"), Voting(low_agreement=0.9))
    assert [tile.label for tile in result.tiles] == [None, "3", "5", None]
    assert [tile.tie for tile in result.tiles] == [True, False, False, False]
    assert [tile.agreement for tile in result.tiles] == [0.5, 0.75, 0.5, 1]
    assert result.outcome == "undecided"
    assert result.reason == "as many tiles show 5 as 3"
    assert "tie on tile correction 0" in result.remarks
    assert "low agreement: 69%, below 90%" in result.remarks
    assert "none of the above on tile correction 3" in result.remarks


def test_tiles_that_show_none_or_another_class_are_dropped_and_said() -> None:
    result = tally(*scenario(), votes("33-335", "33-335", "333335"), Voting())
    assert (result.outcome, result.label) == ("scenario", "3")
    assert result.excluded("correction") == [2, 5]
    assert result.excluded("held_out") == []
    assert result.remarks == ["another class on tile correction 5", "none of the above on tile correction 2"]


def test_tiles_that_were_excluded_do_not_count() -> None:
    result = tally(*scenario(excluded=(0, 1)), votes("883333"), Voting())
    assert [tile.tile for tile in result.tiles] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "nobody has voted"),
        (votes("------", "------"), "none of the above on every tile"),
        (votes("3", "5"), "a tie on every tile that shows a class"),
    ],
)
def test_what_no_majority_labels_is_no_scenario_or_undecided(given: list[VotesRecord], reason: str) -> None:
    result = tally(*scenario(), given, Voting())
    assert (result.label, result.reason) == (None, reason)
    assert result.outcome == ("no scenario" if reason.startswith("none") else "undecided")


def test_without_recorded_predictions_nothing_is_decided() -> None:
    result = tally(*scenario(recorded=False), votes("333333"), Voting())
    assert (result.outcome, result.label) == ("undecided", "3")
    assert "was not recorded" in result.reason


def test_models_count_only_where_that_is_configured() -> None:
    given = [*votes("33"), vote("judge", "8888", "model"), vote("other-judge", "8888", "model")]
    people = tally(*scenario(), given, Voting())
    assert (people.label, people.voters, people.models) == ("3", ("person0",), ("judge", "other-judge"))
    assert people.remarks == ["not counted: judge, other-judge (model)"]
    assert tally(*scenario(), given[1:], Voting()).outcome == "undecided"
    everyone = tally(*scenario(), given, Voting(count_models=True))
    assert (everyone.label, len(everyone.voters), everyone.models) == ("8", 3, ())


@given(answers=st.lists(st.text("358-", min_size=TILES, max_size=TILES), min_size=1, max_size=5))
def test_the_order_of_annotators_and_their_names_mean_nothing(answers: list[str]) -> None:
    one, two = (tally(*scenario(), votes(*order), Voting()) for order in (answers, answers[::-1]))
    assert (one.outcome, one.agreement) == (two.outcome, two.agreement)
    if one.outcome != "undecided":
        assert (one.label, one.reason) == (two.label, two.reason)


@given(answers=st.lists(st.text("358-", min_size=TILES, max_size=TILES), min_size=1, max_size=5))
def test_a_tally_is_what_one_counts_by_hand(answers: list[str]) -> None:
    result = tally(*scenario("555553"), votes(*answers), Voting())
    for tile in range(TILES):
        given = [answer[tile] for answer in answers]
        best = {name for name in given if given.count(name) == max(map(given.count, given))}
        label = result.tiles[tile].label
        assert (label or "-") == (best.pop() if len(best) == 1 else "-")
        assert result.tiles[tile].agreement == max(map(given.count, given)) / len(given)
    labelled = [(tile.label, "555553"[tile.tile]) for tile in result.tiles if tile.label]
    if result.outcome != "undecided" and labelled:
        wrong = sum(label != prediction for label, prediction in labelled)
        assert result.reason.startswith(f"the model is wrong on {wrong} of {len(labelled)} tiles")


def test_agreement_is_shown_by_outcome_as_mean_and_standard_error() -> None:
    scenarios = tally(*scenario(), votes("33", "35", "33"), Voting())  # agreement 1 and 2/3
    others = tally(*scenario("333333"), votes("3", "3"), Voting())  # agreement 1
    table = {row.group: row for row in agreement_table([scenarios, others])}
    assert table["scenarios"].images == 2
    assert table["scenarios"].mean == pytest.approx(5 / 6)
    # Standard deviation of (1, 2/3), with n - 1, is sqrt(1/18); over sqrt(2) it is 1/6.
    assert table["scenarios"].error == pytest.approx(1 / 6)
    assert (table["others"].images, table["others"].mean) == (1, 1)
    assert math.isnan(table["others"].error)
    assert table["both"].images == 3
    assert table["both"].mean == pytest.approx(8 / 9)


def test_without_votes_there_is_no_agreement() -> None:
    table = agreement_table([tally(*scenario(), [], Voting())])
    assert [row.images for row in table] == [0, 0, 0]
    assert all(math.isnan(row.mean) for row in table)


def test_votes_come_back_by_tile() -> None:
    given: Mapping[int, str | None] = {3: "5", 0: "3", 2: None, 1: "3"}
    split = SplitVotes.of("0" * 64, dict(given), CLASSES)
    assert split.labels == {"3": (0, 1), "5": (3,)}
    assert split.by_tile == given


def test_a_decision_by_votes_keeps_what_was_excluded_before(tmp_path: Path) -> None:
    planted = plant(Store(tmp_path / "digits"), random_tiles(TILES), random_tiles(seed=1))
    before = exclude(planted, "correction", 0)
    result = tally(*scenario("555555", excluded=(0,)), votes(" 3333-", " 3333-", " 3333-"), Voting())
    assert result.outcome == "scenario"
    assert decide_by_votes(before, result).record.sheets.correction.excluded == (0, 5)
