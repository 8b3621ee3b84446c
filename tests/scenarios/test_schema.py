import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenarios.planting import random_tiles, record_of

from pytest_defuse.errors import DefuseError
from pytest_defuse.scenarios.schema import (
    FailureRate,
    LatentRegion,
    Method,
    Provenance,
    ScenarioRecord,
    Sheet,
    Sheets,
    StoreRecord,
    Tile,
    Vote,
    read_record,
    write_record,
)

Edit = Callable[[str, str], int]

same_folder = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def short(number: float) -> float:
    """A number with as many digits as a file keeps."""
    return float(f"{number:.7g}")


counts = st.integers(0, 10**6)
shares = st.floats(0, 1).map(short)
numbers = st.floats(allow_nan=False, allow_infinity=False).map(short)
names = st.text(max_size=12) | st.sampled_from(["3", "no", "07", "null", "~", "1e5", "a: b", "# x", "été", "x" * 150])
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
predictions = st.lists(names, min_size=9, max_size=9).map(lambda predicted: dict(Counter(predicted)))
sheets = st.builds(Sheet, images=st.just(9), sha256=hashes, predicted=predictions)
regions = st.integers(1, 3).flatmap(
    lambda size: st.builds(
        LatentRegion,
        generator=hashes,
        weight=shares,
        tau=st.floats(1e-9, 10).map(short),
        mean=st.lists(numbers, min_size=size, max_size=size),
        covariance=st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=size, max_size=size),
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
    failure_rate=st.builds(FailureRate, failed=counts, drawn=st.integers(1, 10**6), low=shares, high=shares),
    tile=st.builds(Tile, mode=st.sampled_from(["L", "RGB"]), width=st.integers(1, 1024), height=st.integers(1, 1024)),
    sheets=st.builds(Sheets, correction=sheets, held_out=sheets),
    votes=st.lists(
        st.builds(
            Vote,
            who=names,
            kind=st.sampled_from(["human", "model"]),
            label=st.none() | names,
            agreement=shares,
            none_of_the_above=counts,
        ),
        max_size=2,
    ),
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
    record = StoreRecord(
        format=1, classes=("no", "07", "cat"), tile=Tile(mode="RGB", width=3, height=5), generator=None
    )
    write_record(tmp_path / "store.yaml", record)
    assert read_record(tmp_path / "store.yaml", StoreRecord) == record


def test_a_file_is_small_and_plain_to_read(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('format: 1\nid: "3-as-5-')
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
        ('status: "candidate"', "status: acepted", "status: Input should be 'candidate', 'accepted' or 'rejected'"),
        ('notes: ""', "note: x", "note: is not a key that is known here"),
        ("failed: 58", "failed: many", "failure_rate.failed: Input should be a valid integer"),
        ("failed: 58", "failed: -1", "failure_rate.failed: Input should be greater than or equal to 0"),
        ("low: 0.81", "low: 81%", "failure_rate.low: Input should be a valid number"),
        ("high: 0.96", "high: 1.5", "failure_rate.high: Input should be less than or equal to 1"),
        ('mode: "L"', "mode: CMYK", "tile.mode: Input should be 'L' or 'RGB'"),
        ("width: 8", "width: 0", "tile.width: Input should be greater than or equal to 1"),
        ("height: 8", "height: 50000", "tile.height: Input should be less than or equal to 1024"),
        ("images: 4", "images: 0", "sheets.correction.images: Input should be greater than or equal to 1"),
        ("tau: 0.5", "tau: 0", "region.tau: Input should be greater than 0"),
        ("tau: 0.5", "tau: inf", "region.tau: Input should be a finite number"),
        ("mean: [0.5", "mean: [nan", "region.mean.0: Input should be a finite number"),
        ("mean: [0.5", "mean: [.nan", "region.mean.0: Input should be a valid number"),
        ("mean: [0.5, -1.0", "mean: [0.5, -inf", "region.mean.1: Input should be a finite number"),
        ("  - [0.0, 1.0, 0.0]", "  - [0.0, infinity, 0.0]", "region.covariance.1.1: Input should be a finite number"),
        ('id: "', 'id: "../', "id: String should match"),
        ('generator: "c', 'generator: "C', "region.generator: String should match"),
        ('torch: "2.9"', "torch: [2, 9]", "provenance.versions.torch: Input should be a valid string"),
        ("versions:", 'versions: "2.9"\n  other:', "provenance.versions: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_value_is_reported_with_key_and_line(path: Path, edit: Edit, old: str, new: str, problem: str) -> None:
    line = edit(old, new)
    assert problems(path)[0].startswith(f"{line}: {problem}")


@pytest.mark.parametrize(
    ("old", "new", "start", "problem"),
    [
        ('status: "candidate"', "status: accepted", "format:", "status is accepted but label is empty"),
        ("excluded: []", "excluded: [4]", "    images:", "excluded names tile 4, but the sheet has tiles 0 to 3"),
        ("excluded: []", "excluded: [3, 2, 1, 0]", "    images:", "excluded names every tile: reject the scenario"),
        (", 2.0]", "]", "  generator:", "covariance must be 2 x 2, as mean has 2 numbers"),
        ("  - [0.0, 1.0, 0.0]\n", "", "  generator:", "covariance must be 3 x 3, as mean has 3 numbers"),
        ("  - [0.0, 1.0, 0.0]", "  - [0.0, 1.0]", "  generator:", "covariance must be 3 x 3, as mean has 3 numbers"),
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
    assert found[0] == "1: id: is missing"
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


@pytest.mark.parametrize("wrong", ["0", "-1", "one", "²", "1.5", "9" * 5000])
def test_a_format_that_never_was_is_an_error_of_the_file(path: Path, edit: Edit, wrong: str) -> None:
    edit("format: 1", f"format: {wrong}")
    assert problems(path)[0].startswith("1: format: ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "1: the file: Input should be a valid dictionary"),
        (b"# nothing\n", "1: the file: Input should be a valid dictionary"),
        (b"- 1\n", "1: the file: Input should be a valid dictionary"),
        (b"just text", "1: the file: Input should be a valid dictionary"),
        (b"format: 1\nid: [", "2: not valid YAML: "),
        (b"format: 1\n\tid: x", "2: not valid YAML: "),
        (b"<<<<<<< HEAD\nformat: 1\n=======\n", "2: not valid YAML: "),
        (b"format: 1\n---\nformat: 1\n", "2: not valid YAML: but found another document"),
        (b"[1]: x\n", "1: not valid YAML: a key must be plain text"),
        (b"notes: \x00", "not valid YAML: "),
        (b'notes: "\\UFFFFFFFF"', "not valid YAML: "),
        (b'notes: "\\U00110000"', "not valid YAML: "),
        (b"[" * 5000, "not valid YAML: it is nested too deeply"),
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
    assert problems(path)[0].startswith("cannot be read")


def test_reading_runs_no_code(path: Path, edit: Edit, tmp_path: Path) -> None:
    made = tmp_path / "made"
    line = edit('notes: ""', f"notes: !!python/object/apply:os.mkdir [{made}]")
    assert problems(path)[0].startswith(f"{line}: notes: Input should be a valid string")
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


def test_counts_of_predictions_must_make_up_the_sheet(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    write_record(path, record_of(random_tiles(9), random_tiles(9)))
    text = path.read_text()
    path.write_text(re.sub(r"images: (\d+)", lambda found: f"images: {int(found[1]) + 1}", text, count=1))
    with pytest.raises(DefuseError, match=r"predicted counts \d+ tiles, but images is \d+"):
        read_record(path, ScenarioRecord)
