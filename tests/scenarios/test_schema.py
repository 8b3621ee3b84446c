import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.documents import canonical_text, parse_document, read_document, read_record, write_record
from pytest_defuse.scenarios.schema import (
    FILE_RECORDS,
    Evidence,
    FailureRate,
    LatentRegion,
    Method,
    Provenance,
    ScenarioRecord,
    Sheet,
    Sheets,
    SplitVotes,
    StoreRecord,
    Tile,
    VotesRecord,
    json_schema,
)
from tests.scenarios.planting import random_tiles, record_of

Edit = Callable[[str, str], int]

same_folder = settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def short(number: float) -> float:
    """A number with as many digits as a file keeps."""
    return float(f"{number:.7g}")


counts = st.integers(0, 10**6)
shares = st.floats(0, 1).map(short)
numbers = st.floats(allow_nan=False, allow_infinity=False).map(short)
names = st.text(max_size=12) | st.sampled_from(["3", "no", "07", "null", "~", "1e5", "a: b", "# x", "été", "x" * 150])
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)


def sheet_taken_for(taken_for: list[str], recorded: bool, sha256: str) -> Sheet:
    """A sheet whose tiles the model takes for these classes."""
    tiles = {name: tuple(t for t, other in enumerate(taken_for) if other == name) for name in taken_for}
    return Sheet(
        images=len(taken_for),
        sha256=sha256,
        predicted=dict(Counter(taken_for)),
        predicted_tiles=tiles if recorded else None,
        excluded=range(0, len(taken_for) - 1, 3),
    )


sheets = st.builds(sheet_taken_for, st.lists(names, min_size=2, max_size=9), st.booleans(), hashes)
rates = st.tuples(counts, st.integers(1, 10**6), shares, shares).map(
    lambda drawn: FailureRate(failed=min(drawn[:2]), drawn=max(drawn[:2]), low=min(drawn[2:]), high=max(drawn[2:]))
)
evidence = st.lists(st.tuples(counts, names, st.floats(0, 1e6).map(short)), max_size=3).map(
    lambda rows: Evidence(
        nearest_images=[row[0] for row in rows],
        nearest_labels=[row[1] for row in rows],
        nearest_distances=[row[2] for row in rows],
        source_labels=dict(Counter(row[1] for row in rows)),
    )
)


def covariance(rows: list[list[float]]) -> list[list[float]]:
    """A positive definite matrix of some numbers."""
    size = len(rows)
    products = [[sum(a * b for a, b in zip(r, c, strict=True)) for c in rows] for r in rows]
    return [[short(products[i][j] + (i == j)) for j in range(size)] for i in range(size)]


regions = st.integers(1, 3).flatmap(
    lambda size: st.builds(
        LatentRegion,
        generator=hashes,
        weight=shares,
        tau=st.floats(1e-9, 10).map(short),
        mean=st.lists(numbers, min_size=size, max_size=size),
        covariance=st.lists(st.lists(st.floats(-9, 9), min_size=size, max_size=size), min_size=size, max_size=size).map(
            covariance
        ),
    )
)
records = st.builds(
    ScenarioRecord,
    format=st.just(1),
    id=st.from_regex(r"[a-z0-9][a-z0-9-]{0,47}", fullmatch=True),
    status=st.sampled_from(["candidate", "rejected"]),
    label=st.none() | names,
    proposed_label=names,
    notes=st.text(max_size=300),
    failure_rate=rates,
    tile=st.builds(Tile, mode=st.sampled_from(["L", "RGB"]), width=st.integers(1, 1024), height=st.integers(1, 1024)),
    sheets=st.builds(Sheets, correction=sheets, held_out=sheets),
    evidence=st.none() | evidence,
    method=st.builds(Method, name=st.sampled_from(["defuse", "barlow"]), rule=st.none() | names),
    provenance=st.builds(
        Provenance,
        model=hashes,
        data=hashes,
        seed=st.integers(),
        versions=st.dictionaries(names, names, max_size=2),
    ),
    region=st.none() | regions,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good scenario.yaml, with a region of three dimensions."""
    identity = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    region = LatentRegion(generator="c" * 64, weight=0.25, tau=0.5, mean=[0.5, -1, 2], covariance=identity)
    path = tmp_path / "scenario.yaml"
    write_record(path, record_of(random_tiles(), random_tiles(seed=1), region=region.model_dump()))
    return path


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
    return read_record(path, ScenarioRecord)


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
    write_record(first, record)
    assert read(first) == record
    write_record(second, read(first))
    assert second.read_bytes() == first.read_bytes()


@same_folder
@given(record=records)
def test_any_yaml_reader_sees_the_same_texts_and_numbers(tmp_path: Path, record: ScenarioRecord) -> None:
    write_record(tmp_path / "scenario.yaml", record)
    assert yaml.safe_load((tmp_path / "scenario.yaml").read_bytes()) == record.model_dump(mode="json")


def test_the_store_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = StoreRecord(format=1, classes=("no", "07", "cat"), tile=Tile(mode="RGB", width=3, height=5))
    write_record(tmp_path / "store.yaml", record)
    assert read_record(tmp_path / "store.yaml", StoreRecord) == record


def test_a_file_is_small_and_plain_to_read(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('# yaml-language-server: $schema=../.schema/scenario.json\nformat: 1\nid: "3-as-5-')
    assert '\nstatus: "candidate"\nlabel: null\nproposed_label: "3"\n' in text
    assert "\n  mean: [0.5, -1.0, 2.0]\n" in text
    assert "!" not in text
    assert len(text) < 2000


def test_any_script_can_be_read_in_the_file(path: Path) -> None:
    write_record(path, read(path).model_copy(update={"notes": "Größe, 猫"}))
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
        ('notes: ""', "note: x", "note: is not a key that is known here"),
        ("failed: 58", "failed: many", "failure_rate.failed: must be a whole number"),
        ("failed: 58", "failed: -1", "failure_rate.failed: must be 0 or more"),
        ("low: 0.81", "low: 81%", "failure_rate.low: must be a number"),
        ("high: 0.96", "high: 1.5", "failure_rate.high: must be 1 or less"),
        ('mode: "L"', "mode: CMYK", "tile.mode: must be 'L' or 'RGB'"),
        ("width: 8", "width: 0", "tile.width: must be 1 or more"),
        ("height: 8", "height: 50000", "tile.height: must be 1024 or less"),
        ("images: 4", "images: 0", "sheets.correction.images: must be 1 or more"),
        ("tau: 0.5", "tau: 0", "region.tau: must be greater than 0"),
        ("tau: 0.5", "tau: inf", "region.tau: must be a finite number"),
        ("mean: [0.5", "mean: [nan", "region.mean.0: must be a finite number"),
        ("mean: [0.5", "mean: [.nan", "region.mean.0: must be a number"),
        ("mean: [0.5, -1.0", "mean: [0.5, -inf", "region.mean.1: must be a finite number"),
        ("  - [0.0, 1.0, 0.0]", "  - [0.0, infinity, 0.0]", "region.covariance.1.1: must be a finite number"),
        ('id: "', 'id: "../', "id: must match the pattern"),
        ('generator: "c', 'generator: "C', "region.generator: must match the pattern"),
        ('torch: "2.9"', "torch: [2, 9]", "provenance.versions.torch: must be text"),
        ("versions:", 'versions: "2.9"\n  other:', "provenance.versions: must hold keys and values"),
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
        ("predicted_tiles: null", 'predicted_tiles: {"5": [0, 1, 2]}', "    predicted_tiles:", "name each tile from 0"),
        ("predicted_tiles: null", 'predicted_tiles: {"5": [0, 1], "3": [2, 3]}', "    predicted_tiles:", "same tiles"),
        ("failed: 58", "failed: 65", "  failed:", "failed is 65, but only 64 were drawn"),
        ("low: 0.81", "low: 0.97", "  low:", "low is 0.97, above high, which is 0.96"),
        (", 2.0]", "]", "  covariance:", "covariance must be 2 x 2, as mean has 2 numbers"),
        ("  - [0.0, 1.0, 0.0]\n", "", "  covariance:", "covariance must be 3 x 3, as mean has 3 numbers"),
        ("  - [0.0, 1.0, 0.0]", "  - [0.0, 1.0]", "  covariance:", "covariance must be 3 x 3, as mean has 3 numbers"),
        ("  - [0.0, 1.0, 0.0]", "  - [0.0, -1.0, 0.0]", "  covariance:", "covariance is not positive definite"),
        ("  - [0.0, 1.0, 0.0]", "  - [0.0, 0.0, 0.0]", "  covariance:", "covariance is not positive definite"),
        ("  - [0.0, 1.0, 0.0]", "  - [0.5, 1.0, 0.0]", "  covariance:", "not symmetric: see row 0, column 1"),
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
    lines = [edit("id:", "name:"), edit("drawn: 64", "drawn: 0"), edit("tau: 0.5", "tau: none at all")]
    found = problems(path)
    assert found[0] == "2: id: is missing"
    assert {int(problem.split(":")[0]) for problem in found[1:]} == set(lines)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("label: null", "label: 3\nlabel: 5", "label"),
        ("label: null", 'label: 3\n"label": 5', "label"),
        ("failed: 58", "failed: 58\n  failed: 58", "failed"),
    ],
)
def test_a_key_given_twice_is_refused_with_the_line_of_the_second(
    path: Path, edit: Edit, old: str, new: str, key: str
) -> None:
    line = edit(old, new)
    assert problems(path) == [f"{line + 1}: not valid YAML: key '{key}' is given twice."]


@pytest.mark.parametrize("newer", ["2", '"2"', "17"])
def test_a_newer_format_is_refused_by_name_whatever_else_it_holds(path: Path, edit: Edit, newer: str) -> None:
    edit("format: 1", f"format: {newer}\nnew_key: 1")
    with pytest.raises(DefuseError) as caught:
        read(path)
    number = newer.strip('"')
    assert str(caught.value) == (
        f"{path} has format {number}, but this pytest-defuse reads formats up to 1: upgrade it."
    )


@pytest.mark.parametrize("wrong", ["-1", "one", "²", "1.5", "9" * 5000])
def test_a_format_that_never_was_is_an_error_of_the_file(path: Path, edit: Edit, wrong: str) -> None:
    edit("format: 1", f"format: {wrong}")
    assert problems(path)[0].startswith("2: format: ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "1: the file is empty"),
        (b"# nothing\n", "1: the file is empty"),
        (b"- 1\n", "1: the file: must hold keys and values"),
        (b"just text", "1: the file: must hold keys and values"),
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
        (b"#" * (4 * 2**20 + 1), "has 4,194,305 bytes, at most 4,194,304 are read"),
        (b"a: &a 1\nb: *a\n", "2: not valid YAML: aliases are not used here"),
        (b"a: &a [*a]\n", "1: not valid YAML: aliases are not used here"),
    ],
)
def test_a_file_of_another_kind_is_refused(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(content)
    assert problems(path)[0].startswith(problem)


def test_a_few_lines_cannot_stand_for_many(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 6)]
    path.write_text("\n".join(lines))
    assert problems(path) == ["2: not valid YAML: aliases are not used here: write the value again."]


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
    assert problems(path)[0].startswith(f"{line}: notes: must be text")
    assert not made.exists()


@same_folder
@given(
    start=st.floats(0, 1),
    length=st.integers(0, 30),
    junk=st.binary(max_size=4) | st.sampled_from([*"[{\"'&*|>\\\t?:-~!%\r", "\n---\n", "!!int ", "%YAML 3\n"]),
)
def test_a_damaged_file_is_read_or_refused(path: Path, start: float, length: int, junk: bytes | str) -> None:
    write_record(path, record_of(random_tiles(), random_tiles(seed=1)))
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
    format=st.just(1),
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
    assert document.canonical
    assert canonical_text(document.record) == text


def test_a_tile_has_one_vote_of_an_annotator() -> None:
    votes = f'correction:\n  sha256: "{"0" * 64}"\n  labels: {{"3": [1, 2], "5": [2]}}\n'
    text = f"format: 1\nannotator: anna\nkind: human\n{votes}"
    with pytest.raises(DefuseError, match=r"^v:6: correction\.labels: tile 2 has two votes: keep one$"):
        parse_document(text.encode(), "v", VotesRecord)


@pytest.mark.parametrize("name", ["Anna", "a/b", "../x", "", ".hidden", "x" * 65])
def test_an_annotator_is_named_as_a_file_can_be(name: str) -> None:
    text = f'format: 1\nannotator: "{name}"\nkind: human\n'
    with pytest.raises(DefuseError, match=r"^v:2: annotator: must"):
        parse_document(text.encode(), "v", VotesRecord)


def test_a_class_is_named_once(tmp_path: Path) -> None:
    text = "format: 1\nclasses: [cat, dog, cat]\ntile: {mode: L, width: 8, height: 8}\n"
    with pytest.raises(DefuseError, match=r"^s:2: classes: class 'cat' is given twice$"):
        parse_document(text.encode(), "s", StoreRecord)


def test_no_file_can_ask_for_more_pixels_than_memory_holds(path: Path, edit: Edit) -> None:
    edit("width: 8", "width: 1024")
    edit("height: 8", "height: 1024")
    edit("images: 4", "images: 100")
    edit('"5": 3', '"5": 99')
    (found,) = problems(path)
    assert "correction would have 104,857,600 pixels; at most 67,108,864 are read" in found


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


def test_a_file_changed_by_hand_is_told_from_a_canonical_one(path: Path, edit: Edit) -> None:
    assert read_document(path, ScenarioRecord).canonical
    edit('status: "candidate"', "status: candidate")
    assert not read_document(path, ScenarioRecord).canonical


def test_excluded_tiles_do_not_count(path: Path) -> None:
    sheet = Sheet(
        images=4,
        sha256="0" * 64,
        predicted={"5": 3, "3": 1},
        predicted_tiles={"5": (0, 1, 2), "3": (3,)},
        excluded=(0, 1),
    )
    assert sheet.kept == [2, 3]
    assert sheet.counts == {"5": 1, "3": 1}
    assert (sheet.accuracy("3"), sheet.accuracy("8")) == (0.5, 0)
    unknown = sheet.model_copy(update={"predicted_tiles": None})
    assert unknown.counts == {"5": 3, "3": 1}


def test_counts_of_predictions_must_make_up_the_sheet(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    write_record(path, record_of(random_tiles(9), random_tiles(9)))
    text = path.read_text()
    path.write_text(re.sub(r"images: (\d+)", lambda found: f"images: {int(found[1]) + 1}", text, count=1))
    with pytest.raises(DefuseError, match=r"predicted counts \d+ tiles, but images is \d+"):
        read_record(path, ScenarioRecord)
