"""What a decision writes: its own values alone, whatever people did to the file."""

import codecs
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.cli import main
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.documents import parse_document
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import ScenarioRecord
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.writing import canonical_text, edited
from tests.examples import fewer_examples
from tests.scenarios.broken import edit
from tests.scenarios.planting import exclude, plant, random_tiles, record_of, with_predictions

BY_HAND = """\
%YAML 1.1
---
# How we label: see the wiki
format: 2   # do not touch
id:         '{id}'

status:     candidate     # two people, please
label:      # fill in
proposed_label: "3"
description: Größe 猫
notes: |
  Threes with a flat top.

  # no comment, but a part of the notes
bounds:
  min_accuracy: 0.9   # agreed in May
failure_rate:
  failed: 58
  drawn: 64
  low: 0.81
  high: 0.96
tile: {{mode: L, width: 8, height: 8}}
sheets:
  correction:
    images: 4
    sha256: {correction}
    predicted: {{"5": 3, "3": 1}}
    excluded:
    - 1    # smudged
    # tile 2 is all right
  held_out: {{images: 4, sha256: {held_out}, predicted: {{"5": 3, "3": 1}}, excluded: [2  # a letter
    ]}}
method: defuse
provenance:
  model: {model}
  data: {data}
  seed: 0
  versions: {{torch: "2.9"}}
machine: {machine}
# The end
"""


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A candidate whose scenario.yaml people have laid out and commented."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    planted = with_predictions(plant(Store(Path("fixtures/digits")), random_tiles(), random_tiles(seed=1)))
    record = planted.record
    text = BY_HAND.format(
        id=record.id,
        correction=record.sheets.correction.sha256,
        held_out=record.sheets.held_out.sha256,
        model=record.provenance.model,
        data=record.provenance.data,
        machine=record.machine,
    )
    planted.yaml.write_text(text, encoding="utf-8")
    return Store.of(planted).get(record.id)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


LABELLED = (
    ("status:     candidate     #", 'status:     "accepted"     #'),
    ("label:      # fill in", 'label: "3"      # fill in'),
)


def test_label_changes_two_values(scenario: Scenario) -> None:
    before = scenario.yaml.read_text(encoding="utf-8")
    assert main(["label", scenario.id, "--label", "3"]) == 0
    assert scenario.yaml.read_text(encoding="utf-8") == replaced(before, *LABELLED)


def test_windows_line_ends_stay(scenario: Scenario) -> None:
    before = scenario.yaml.read_bytes().replace(b"\n", b"\r\n")
    scenario.yaml.write_bytes(before)
    assert main(["label", scenario.id, "--label", "3"]) == 0
    assert scenario.yaml.read_bytes().decode() == replaced(before.decode(), *LABELLED)


def test_rejecting_again_changes_nothing(scenario: Scenario) -> None:
    assert main(["label", scenario.id, "--reject"]) == 0
    before = scenario.yaml.read_bytes()
    assert b"label:      # fill in" in before
    assert main(["label", scenario.id, "--reject"]) == 0
    assert scenario.yaml.read_bytes() == before


def test_votes_add_tiles_below_those_that_have_comments(scenario: Scenario) -> None:
    before = scenario.yaml.read_text(encoding="utf-8")
    votes = {0: "3", 2: "3", 3: None}
    Store.of(scenario).vote(scenario.id, "anna", {"correction": votes, "held_out": {0: "3", 1: "8", 3: None}})
    assert main(["votes", "--decide"]) == 0
    assert scenario.yaml.read_text(encoding="utf-8") == replaced(
        before,
        *LABELLED,
        ("    - 1    # smudged\n", "    - 1    # smudged\n    - 3\n"),
        ("excluded: [2  # a letter", "excluded: [2, 1, 3  # a letter"),
    )


def test_notes_in_a_block_are_replaced_whole(scenario: Scenario) -> None:
    before = scenario.yaml.read_text(encoding="utf-8")
    Store.of(scenario).update(scenario.id, notes='a "b"\nc')
    after = scenario.yaml.read_text(encoding="utf-8")
    start, end = before.index("notes: |"), before.index("bounds:")
    assert after == before[:start] + 'notes: "a \\"b\\"\\nc"\n' + before[end:]


def test_a_key_that_was_left_out_goes_below_the_one_before_it(scenario: Scenario) -> None:
    for pattern in (r"notes: \|\n(  .*\n|\n)*", r"    excluded:\n.*\n.*\n"):
        scenario.yaml.write_text(re.sub(pattern, "", scenario.yaml.read_text(encoding="utf-8")), encoding="utf-8")
    before = scenario.yaml.read_text(encoding="utf-8")
    exclude(Store.of(scenario).update(scenario.id, notes="new"), "correction", 0)
    assert scenario.yaml.read_text(encoding="utf-8") == replaced(
        before,
        ("description: Größe 猫\n", 'description: Größe 猫\nnotes: "new"\n'),
        ('"3": 1}\n  held_out', '"3": 1}\n    excluded: [0]\n  held_out'),
    )


def test_fewer_tiles_are_written_as_a_list(scenario: Scenario) -> None:
    assert exclude(scenario, "held_out").record.sheets.held_out.excluded == ()
    assert exclude(scenario, "correction", 3).record.sheets.correction.excluded == (3,)


CHANGES: dict[str, tuple[str, str, Callable[[Scenario], object], str]] = {
    "block": (
        "notes: |\n  Threes with a flat top.\n\n  # no comment, but a part of the notes\n",
        "notes: |  # why\n  # no comment\n",
        lambda scenario: Store.of(scenario).update(scenario.id, notes="new"),
        'notes: "new"  # why\n',
    ),
    "folded block": (
        "status:     candidate     # two people, please\n",
        "status: >-  # why\n  candidate\n# two people, please\n",
        lambda scenario: Store.of(scenario).update(scenario.id, status="rejected"),
        'status: "rejected"  # why\n# two people, please\n',
    ),
    "value below its tag": (
        "status:     candidate     # two people, please\n",
        "status: !!str  # why\n  candidate # two people, please\n",
        lambda scenario: Store.of(scenario).update(scenario.id, status="rejected"),
        'status: "rejected"  # why # two people, please\n',
    ),
    "empty list": (
        "excluded:\n    - 1    # smudged\n    # tile 2 is all right\n",
        "excluded: [  # none yet\n    ]\n",
        lambda scenario: exclude(scenario, "correction", 3),
        "excluded: [3]  # none yet\n",
    ),
    "other items": (
        "excluded:\n    - 1    # smudged\n    # tile 2 is all right\n",
        "excluded:\n    - 1    # smudged\n    # by the printer\n    - 2 # a letter\n",
        lambda scenario: exclude(scenario, "correction", 2),
        "excluded:\n      [2]  # smudged  # by the printer # a letter\n",
    ),
    "list in a mapping on the same line": (
        "excluded: [2  # a letter\n    ]}\n",
        "excluded: [2,# a letter\n    ]}\n",
        lambda scenario: exclude(scenario, "held_out"),
        "excluded: []  # a letter\n    }\n",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_comments_in_a_value_that_is_replaced_come_after_the_new_one(scenario: Scenario, name: str) -> None:
    by_hand, before, change, after = CHANGES[name]
    text = replaced(scenario.yaml.read_text(encoding="utf-8"), (by_hand, before))
    scenario.yaml.write_text(text, encoding="utf-8")
    change(scenario)
    assert scenario.yaml.read_text(encoding="utf-8") == replaced(text, (before, after))


def test_a_byte_order_mark_stays(scenario: Scenario) -> None:
    before = codecs.BOM_UTF8 + scenario.yaml.read_bytes()
    scenario.yaml.write_bytes(before)
    assert main(["label", scenario.id, "--label", "3"]) == 0
    assert scenario.yaml.read_bytes().decode() == replaced(before.decode(), *LABELLED)


def test_a_value_that_does_not_read_back_equal_is_not_written(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scenario.yaml.read_bytes()
    monkeypatch.setattr("pytest_defuse.scenarios.writing._inline", lambda value: "other")
    with pytest.raises(DefuseError, match=r"scenario\.yaml cannot be rewritten without changing what it holds: edit"):
        Store.of(scenario).update(scenario.id, notes="new")
    monkeypatch.setattr("pytest_defuse.scenarios.writing._inline", lambda value: "[")
    with pytest.raises(DefuseError, match=r"scenario\.yaml cannot be rewritten without changing what it holds: edit"):
        Store.of(scenario).update(scenario.id, notes="new")
    assert scenario.yaml.read_bytes() == before


def test_migrate_leaves_a_file_of_the_present_format_as_it_is(scenario: Scenario) -> None:
    before = scenario.yaml.read_bytes()
    assert main(["migrate", "--check"]) == 0
    assert main(["migrate"]) == 0
    assert scenario.yaml.read_bytes() == before


def test_the_page_keeps_comments(scenario: Scenario) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from tests.review.test_page import Page

    before = scenario.yaml.read_text(encoding="utf-8")
    reply = Page(Path("fixtures")).submit(f"/scenarios/digits/{scenario.id}", data={"label": "3"})
    assert reply.status_code == 303
    assert scenario.yaml.read_text(encoding="utf-8") == replaced(before, *LABELLED)


texts = st.text(max_size=60) | st.sampled_from(
    ["", "3", "no", "# x", "a: b", "x  # y", "- a", "\\", '"', "a\nb", "é猫"]
)
LAYOUTS: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: text.replace('"candidate"', "candidate"),
    lambda text: text.replace("label: null", "label:"),
    lambda text: text.replace("label: null", "label: ~   # open"),
    lambda text: re.sub("(?m)^notes: .*$", "notes: >-\n  a\n  b", text),
    lambda text: text.replace("excluded: []", "excluded:\n    - 0\n    -   1 # odd"),
    lambda text: text.replace("\n", "\r\n"),
]


@fewer_examples(60)
@given(
    layouts=st.sets(st.sampled_from(range(len(LAYOUTS)))),
    notes=texts,
    label=st.none() | texts,
    excluded=st.lists(st.integers(0, 2), unique=True),
)
def test_an_edited_document_reads_back(layouts: set[int], notes: str, label: str | None, excluded: list[int]) -> None:
    text = canonical_text(record_of(random_tiles(), random_tiles(seed=1)))
    for number in sorted(layouts):
        text = LAYOUTS[number](text)
    document = parse_document(text.encode(), "scenario.yaml", ScenarioRecord)
    sheets = document.record.sheets.model_dump()
    sheets["correction"]["excluded"] = excluded
    record = ScenarioRecord.model_validate(
        document.record.model_dump() | {"notes": notes, "label": label, "sheets": sheets}
    )
    assert edited(document, record).record == record


def test_an_unknown_key_of_an_edit_by_hand_is_still_refused(scenario: Scenario) -> None:
    edit(scenario.yaml, "notes: |", "note: |")
    with pytest.raises(DefuseError, match="note: is not a known key"):
        Store.of(scenario).update(scenario.id, status="rejected")
