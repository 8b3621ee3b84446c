import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.documents import parse_document, read_document
from pytest_defuse.scenarios.schema import (
    FILE_RECORDS,
    FORMAT,
    Budgets,
    FailureRate,
    FileRecord,
    Provenance,
    ScenarioRecord,
    SheetRecord,
    Sheets,
    SplitVotes,
    StoreRecord,
    TileFormat,
    VotesRecord,
    json_schema,
)
from pytest_defuse.scenarios.writing import canonical_text
from tests.examples import fewer_examples
from tests.scenarios.planting import random_tiles, record_of

Edit = Callable[[str, str], int]

same_folder = fewer_examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


counts = st.integers(0, 10**6)
shares = st.floats(0, 1)
names = st.text(max_size=12) | st.sampled_from(["3", "no", "07", "null", "~", "1e5", "a: b", "# x", "été", "x" * 150])
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)


def sheet_of(predicted: list[str], sha256: str) -> SheetRecord:
    """A sheet with these predictions."""
    excluded = range(0, len(predicted) - 1, 3)
    return SheetRecord(images=len(predicted), sha256=sha256, predicted=dict(Counter(predicted)), excluded=excluded)


sheets = st.builds(sheet_of, st.lists(names, min_size=2, max_size=9), hashes)
rates = st.tuples(counts, st.integers(1, 10**6), shares, shares).map(
    lambda drawn: FailureRate(failed=min(drawn[:2]), drawn=max(drawn[:2]), low=min(drawn[2:]), high=max(drawn[2:]))
)
tiles = st.builds(TileFormat, mode=st.sampled_from(["L", "RGB"]), width=st.integers(1, 999), height=st.integers(1, 999))
parts = {
    "format": st.just(FORMAT),
    "id": st.from_regex(r"[a-z0-9][a-z0-9-]{0,47}", fullmatch=True),
    "label": st.none() | names,
    "notes": st.text(max_size=300),
    "description": st.text(max_size=300),
    "tile": tiles,
    "gap": st.integers(0, 9),
    "base_error_rate": st.none() | shares,
    "machine": hashes,
}
discovered = st.builds(
    ScenarioRecord,
    **parts,
    status=st.sampled_from(["candidate", "rejected"]),
    proposed_label=names,
    failure_rate=rates,
    sheets=st.builds(Sheets, correction=sheets, held_out=sheets),
    method=st.sampled_from(["defuse", "transformations", "barlow"]),
    provenance=st.builds(
        Provenance,
        model=hashes,
        data=hashes,
        seed=st.integers(),
        versions=st.dictionaries(names, names, max_size=2),
    ),
)
unpredicted = st.builds(SheetRecord, images=st.integers(1, 9), sha256=hashes)
reported = st.builds(
    ScenarioRecord,
    **parts | {"label": st.none()},
    status=st.just("accepted"),
    labels=st.just("per image"),
    sheets=st.builds(Sheets, correction=unpredicted, held_out=unpredicted),
    method=st.just("reported"),
    provenance=st.builds(Provenance, versions=st.just({})),
)
records = discovered | reported


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good scenario.yaml."""
    path = tmp_path / "scenario.yaml"
    write(path, record_of(random_tiles(), random_tiles(seed=1)))
    return path


def write(path: Path, record: FileRecord) -> None:
    path.write_text(canonical_text(record), encoding="utf-8", newline="\n")


@pytest.fixture
def edit(path: Path) -> Edit:
    """Replace the first occurrence of a text in the file, as by hand; the line where it was."""

    def replace(old: str, new: str) -> int:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return text[: text.index(old)].count("\n") + 1

    return replace


def read(path: Path) -> ScenarioRecord:
    return read_document(path, ScenarioRecord).record


def problems(path: Path) -> list[str]:
    """What is wrong with the file, a line each, without its name."""
    with pytest.raises(DefuseError) as caught:
        read(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(str(path)) for line in lines)
    return [line.removeprefix(str(path)).lstrip(": ") for line in lines]


@same_folder
@given(record=records)
def test_a_record_is_read_as_it_was_written_and_written_with_the_same_bytes(
    tmp_path: Path, record: ScenarioRecord
) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    write(first, record)
    assert read(first) == record
    write(second, read(first))
    assert second.read_bytes() == first.read_bytes()


@same_folder
@given(record=records)
def test_any_yaml_reader_sees_the_same_texts_and_numbers(tmp_path: Path, record: ScenarioRecord) -> None:
    write(tmp_path / "scenario.yaml", record)
    seen = yaml.safe_load((tmp_path / "scenario.yaml").read_bytes())
    assert "label" in seen
    assert without_null(seen) == without_null(record.model_dump(mode="json"))


def without_null(data: object) -> object:
    if not isinstance(data, dict):
        return data
    return {key: without_null(value) for key, value in data.items() if value is not None}


def test_the_store_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = StoreRecord.of(("no", "07", "cat"), TileFormat(mode="RGB", width=3, height=5))
    write(tmp_path / "store.yaml", record)
    assert read_document(tmp_path / "store.yaml", StoreRecord).record == record


def test_a_file_reads_on_one_screen(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('# yaml-language-server: $schema=../.schema/scenario.json\nformat: 2\nid: "3-as-5-')
    assert '\nstatus: "candidate"\nlabel: null\nproposed_label: "3"\ndescription: "' in text
    assert '\n    predicted: {"5": 3, "3": 1}\n    excluded: []\n' in text
    assert "!" not in text
    assert len(text.splitlines()) == 30


def test_any_script_can_be_read_in_the_file(path: Path) -> None:
    write(path, read(path).model_copy(update={"notes": "Größe, 猫"}))
    assert 'notes: "Größe, 猫"\n' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("3", "3"),
        ("07", "07"),
        ("no", "no"),
        ("yes  # sure", "yes"),
        ("1.0", "1.0"),
        ("0x1F", "0x1F"),
        ("2024-01-01", "2024-01-01"),
        ("true", "true"),
        ('"3"', "3"),
        ("'null'", "null"),
        ("<<", "<<"),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_a_label_typed_by_hand_is_the_text_that_one_sees(path: Path, edit: Edit, typed: str, label: str | None) -> None:
    edit("label: null", f"label: {typed}")
    assert read(path).label == label


def test_accepting_by_hand_takes_two_edits(path: Path, edit: Edit) -> None:
    edit('status: "candidate"', "status: accepted")
    edit("label: null", "label: 3")
    assert (read(path).status, read(path).label) == ("accepted", "3")


@pytest.mark.parametrize("changed", ["\ufeff{}", "# a comment\n{}"])
def test_editors_may_add_a_byte_order_mark_or_comments(path: Path, changed: str) -> None:
    before = read(path)
    path.write_text(changed.format(path.read_text()), encoding="utf-8")
    assert read(path) == before


def test_windows_line_ends_change_nothing(path: Path) -> None:
    before = read(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(path) == before


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('status: "candidate"', "status: acepted", "status: must be 'candidate', 'accepted' or 'rejected'"),
        ('notes: ""', "note: x", "note: is not a known key"),
        ("failed: 58", "failed: many", "failure_rate.failed: must be a whole number"),
        ("failed: 58", "failed: -1", "failure_rate.failed: must be >= 0"),
        ("low: 0.81", "low: 81%", "failure_rate.low: must be a number"),
        ("high: 0.96", "high: 1.5", "failure_rate.high: must be <= 1"),
        ('mode: "L"', "mode: CMYK", "tile.mode: must be 'L' or 'RGB'"),
        ("width: 8", "width: 0", "tile.width: must be >= 1"),
        ("height: 8", "height: 50000", "tile.height: must be <= 1024"),
        ("images: 4", "images: 0", "sheets.correction.images: must be >= 1"),
        ('id: "', 'id: "../', "id: must match the pattern"),
        ('torch: "2.9"', "torch: [2, 9]", "provenance.versions.torch: must be a string"),
        ('versions: {torch: "2.9"}', 'versions: "2.9"', "provenance.versions: must be a mapping"),
        ("gap: 0", "gap: -1", "gap: must be >= 0"),
        ('method: "defuse"', "method: magic", "method: must be 'defuse', 'transformations', 'barlow' or 'reported'"),
        ('machine: "', 'machine: "x', "machine: must match the pattern"),
    ],
)
def test_a_wrong_value_is_reported_with_key_and_line(path: Path, edit: Edit, old: str, new: str, problem: str) -> None:
    line = edit(old, new)
    assert problems(path)[0].startswith(f"{line}: {problem}")


@pytest.mark.parametrize(
    ("old", "new", "start", "problem"),
    [
        ('status: "candidate"', "status: accepted", "label:", "status is accepted but label is empty"),
        ("excluded: []", "excluded: [4]", "    excluded:", "excluded names tile 4, but the sheet has tiles 0 to 3"),
        ("excluded: []", "excluded: [3, 2, 1, 0]", "    excluded:", "excluded names every tile: reject the scenario"),
        ('"5": 3', '"5": 2', "    predicted:", "predicted counts 3 tiles, but images is 4"),
        ("label: null", "label: 3\nlabels: per image", "label:", "each image has its own label"),
        ('proposed_label: "3"\n', "", "format:", "is missing; only a scenario with method: reported can leave it out"),
        ('    predicted: {"5": 3, "3": 1}\n', "", "sheets:", "correction.predicted is missing; only a scenario with"),
        ("  seed: 0\n", "", "provenance:", "seed is missing; only a scenario with method: reported"),
        ("failed: 58", "failed: 65", "failure_rate:", "failed is 65, but only 64 were drawn"),
        ("low: 0.81", "low: 0.97", "failure_rate:", "low is 0.97, above high, which is 0.96"),
    ],
)
def test_values_that_contradict_each_other_are_reported_with_the_line_of_their_part(
    path: Path, edit: Edit, old: str, new: str, start: str, problem: str
) -> None:
    edit(old, new)
    (found,) = problems(path)
    line, _, message = found.partition(": ")
    assert problem in message
    assert path.read_text().splitlines()[int(line) - 1].startswith(start)


@pytest.mark.parametrize("excluded", ["[-1]", "[0, first]", "[0.5]"])
def test_excluded_holds_numbers_of_tiles(path: Path, edit: Edit, excluded: str) -> None:
    line = edit("excluded: []", f"excluded: {excluded}")
    assert problems(path)[0].startswith(f"{line}: sheets.correction.excluded.")


def test_all_errors_of_a_file_are_reported_at_once(path: Path, edit: Edit) -> None:
    lines = [edit("id:", "name:"), edit("drawn: 64", "drawn: 0"), edit("seed: 0", "seed: none at all")]
    found = problems(path)
    assert found[0] == "2: id: is missing"
    assert {int(problem.split(":")[0]) for problem in found[1:]} == set(lines)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("label: null", "label: 3\nlabel: 5", "label"),
        ("label: null", 'label: 3\n"label": 5', "label"),
        ("failed: 58", "failed: 58,\n  failed: 58", "failed"),
    ],
)
def test_a_key_given_twice_is_refused_with_the_line_of_the_second(
    path: Path, edit: Edit, old: str, new: str, key: str
) -> None:
    line = edit(old, new)
    assert problems(path) == [f"{line + 1}: not valid YAML: key '{key}' is given twice."]


@pytest.mark.parametrize("newer", ["3", '"3"', "17"])
def test_a_newer_format_is_refused_by_name_whatever_else_it_holds(path: Path, edit: Edit, newer: str) -> None:
    edit("format: 2", f"format: {newer}\nnew_key: 1")
    with pytest.raises(DefuseError) as caught:
        read(path)
    number = newer.strip('"')
    assert str(caught.value) == (
        f"{path} has format {number}, but this pytest-defuse reads formats up to 2: upgrade it."
    )


@pytest.mark.parametrize("wrong", ["-1", "one", "²", "1.5", "9" * 5000])
def test_a_format_that_never_was_is_an_error_of_the_file(path: Path, edit: Edit, wrong: str) -> None:
    edit("format: 2", f"format: {wrong}")
    assert problems(path)[0].startswith("2: format: ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "1: the file is empty"),
        (b"# nothing\n", "1: the file is empty"),
        (b"- 1\n", "1: the file: must be a mapping"),
        (b"just text", "1: the file: must be a mapping"),
        (b"format: 1\nid: [", "2: not valid YAML ("),
        (b"format: 1\n\tid: x", "2: not valid YAML ("),
        (b"format: 1\n<<<<<<< HEAD\nid: x\n=======\nid: y\n>>>>>>> other\n", "2: holds a merge conflict: keep one"),
        (b"format: 1\n---\nformat: 1\n", "2: not valid YAML ("),
        (b"[1]: x\n", "1: not valid YAML: a key must be plain text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid x\n",
            "is a Git LFS pointer, not the file: run 'git lfs pull'.",
        ),
        (b"notes: \x00", "1: not valid YAML ("),
        (b'notes: "\\UFFFFFFFF"', "1: not valid YAML ("),
        (b'notes: "\\U00110000"', "1: not valid YAML ("),
        (b"[" * 33, "1: not valid YAML: it is nested too deeply"),
        (b"- " * 33, "1: not valid YAML: it is nested too deeply"),
        (b"[" * 5000, "1: not valid YAML"),
        (b"#" * (4 * 2**20 + 1), "has 4,194,305 bytes, more than the limit of 4,194,304"),
        (b"a: &a 1\nb: *a\n", "2: not valid YAML: aliases are not supported"),
        (b"a: &a [*a]\n", "1: not valid YAML: aliases are not supported"),
    ],
)
def test_a_file_of_another_kind_is_refused(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(content)
    assert problems(path)[0].startswith(problem)


def test_a_few_lines_cannot_stand_for_many(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 6)]
    path.write_text("\n".join(lines))
    assert problems(path) == ["2: not valid YAML: aliases are not supported: write the value again."]


@pytest.mark.parametrize("content", ["Größe".encode("latin-1"), "notes: x".encode("utf-16")])
def test_a_file_in_another_encoding_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert problems(path)[0].startswith("is not UTF-8 text")


def test_a_file_that_is_gone_or_a_folder_is_refused(path: Path) -> None:
    path.unlink()
    assert problems(path) == ["is missing: restore it from git, or remove the folder."]
    path.mkdir()
    assert problems(path) == ["is not a file: restore it from git."]


def test_reading_runs_no_code(path: Path, edit: Edit, tmp_path: Path) -> None:
    made = tmp_path / "made"
    line = edit('notes: ""', f"notes: !!python/object/apply:os.mkdir [{made}]")
    assert problems(path)[0].startswith(f"{line}: notes: must be a string")
    assert not made.exists()


@same_folder
@given(
    start=st.floats(0, 1),
    length=st.integers(0, 30),
    junk=st.binary(max_size=4) | st.sampled_from([*"[{\"'&*|>\\\t?:-~!%\r", "\n---\n", "!!int ", "%YAML 3\n"]),
)
def test_a_damaged_file_is_read_or_refused(path: Path, start: float, length: int, junk: bytes | str) -> None:
    write(path, record_of(random_tiles(), random_tiles(seed=1)))
    data = path.read_bytes()
    place = int(start * len(data))
    path.write_bytes(data[:place] + (junk if isinstance(junk, bytes) else junk.encode()) + data[place + length :])
    with suppress(DefuseError):
        read(path)


split_votes = st.builds(
    lambda sha256, votes: SplitVotes.of(sha256, dict(enumerate(votes)), sorted({v for v in votes if v is not None})),
    hashes,
    st.lists(st.none() | names, max_size=6),
)
votes = st.builds(
    VotesRecord,
    format=st.just(FORMAT),
    annotator=st.from_regex(r"[a-z0-9][a-z0-9._@+-]{0,20}", fullmatch=True),
    kind=st.sampled_from(["human", "model"]),
    correction=st.none() | split_votes,
    held_out=st.none() | split_votes,
)


@given(record=votes)
def test_votes_are_read_as_they_were_written_and_written_with_the_same_bytes(record: VotesRecord) -> None:
    text = canonical_text(record)
    document = parse_document(text.encode(), "votes.yaml", VotesRecord)
    assert document.record == record
    assert canonical_text(document.record) == text


def test_a_tile_has_one_vote_of_an_annotator() -> None:
    votes = f'correction:\n  sha256: "{"0" * 64}"\n  labels: {{"3": [1, 2], "5": [2]}}\n'
    text = f"format: 2\nannotator: anna\nkind: human\n{votes}"
    with pytest.raises(DefuseError, match=r"^v:6: correction\.labels: tile 2 has two votes: keep one$"):
        parse_document(text.encode(), "v", VotesRecord)


@pytest.mark.parametrize("name", ["Anna", "a/b", "../x", "", ".hidden", "x" * 65])
def test_an_annotator_is_named_as_a_file_can_be(name: str) -> None:
    text = f'format: 2\nannotator: "{name}"\nkind: human\n'
    with pytest.raises(DefuseError, match=r"^v:2: annotator: must"):
        parse_document(text.encode(), "v", VotesRecord)


def test_a_class_is_named_once(tmp_path: Path) -> None:
    text = "format: 2\nclasses: [cat, dog, cat]\ntile: {mode: L, width: 8, height: 8}\n"
    with pytest.raises(DefuseError, match=r"^s:2: classes: class 'cat' is given twice$"):
        parse_document(text.encode(), "s", StoreRecord)


def test_no_file_can_ask_for_more_pixels_than_memory_holds(path: Path, edit: Edit) -> None:
    edit("width: 8", "width: 1024")
    edit("height: 8", "height: 1024")
    edit("images: 4", "images: 100")
    edit('"5": 3', '"5": 99')
    (found,) = problems(path)
    assert "correction would have 104,857,600 pixels, more than the limit of 67,108,864" in found


@pytest.mark.parametrize("kind", FILE_RECORDS)
def test_the_json_schema_names_every_key_and_needs_nothing_else(kind: type) -> None:
    schema = json_schema(kind)
    assert set(schema["properties"]) == set(kind.model_fields)
    assert schema["additionalProperties"] is False
    assert set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema))) <= set(schema["$defs"])


def test_an_editor_takes_a_label_typed_by_hand() -> None:
    label = json_schema(ScenarioRecord)["properties"]["label"]
    assert {"type": ["string", "number", "boolean"]} in label["anyOf"]


def test_every_file_names_its_schema(path: Path) -> None:
    for kind in FILE_RECORDS:
        assert kind.schema_file.endswith(f".schema/{kind.schema_name}.json")
    assert path.read_text().splitlines()[0] == "# yaml-language-server: $schema=../.schema/scenario.json"


def test_excluded_tiles_are_not_kept() -> None:
    assert SheetRecord(images=4, sha256="0" * 64, excluded=(0, 1)).kept == [2, 3]


@pytest.mark.parametrize(
    ("tile", "tiles"),
    [
        (TileFormat(mode="L", width=28, height=28), 256),
        (TileFormat(mode="RGB", width=32, height=32), 256),
        (TileFormat(mode="RGB", width=64, height=64), 170),
        (TileFormat(mode="RGB", width=224, height=224), 13),
        (TileFormat(mode="RGB", width=1024, height=1024), 1),
    ],
)
def test_a_sheet_holds_as_many_tiles_as_its_budget_of_bytes(tile: TileFormat, tiles: int) -> None:
    assert Budgets.of(tile) == Budgets(sheet_bytes=2**21, tiles=tiles)


def test_counts_of_predictions_must_make_up_the_sheet(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    write(path, record_of(random_tiles(9), random_tiles(9)))
    text = path.read_text()
    path.write_text(re.sub(r"images: (\d+)", lambda found: f"images: {int(found[1]) + 1}", text, count=1))
    with pytest.raises(DefuseError, match=r"predicted counts \d+ tiles, but images is \d+"):
        read(path)
