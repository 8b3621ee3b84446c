"""Files that would take all memory, all time or a traceback: each is one sentence, within 5 seconds and 1 GiB."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_defuse.gate.baseline import Baseline, SubjectBaseline, load_baseline, save_baseline
from pytest_defuse.gate.predictions import Predictions
from pytest_defuse.report.results_file import load_results
from pytest_defuse.runtime import json_text
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.exchange.ground_truth import read_manifest
from pytest_defuse.scenarios.exchange.label_studio import read_export
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from tests.scenarios.broken import content, edit, good_store, machine, scenario, store, votes
from tests.siege.bounded import outcomes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
FORMAT_1 = Path(__file__).parents[2] / "fixtures" / "formats" / "1" / "digits"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good scenario in a good store."""
    return good_store(tmp_path_factory.mktemp("fixtures") / "digits")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good.parent, tmp_path / "digits")
    return tmp_path / "digits" / good.name


def use(folder: Path) -> list[str]:
    """All that reads a store."""
    problems = [str(problem) for problem in verify([Store(folder)])]
    try:
        for known in Store(folder).scenarios():
            _ = known.counts("held_out"), known.recorded_accuracy("held_out"), known.record.sheets.held_out.kept
            _ = known.pixels("held_out"), known.votes()
    except DefuseError as error:
        problems += str(error).splitlines()
    assert all("\n" not in problem and len(problem) < 1000 for problem in problems), problems
    assert len(problems) < 100
    return problems


def unknown_keys(folder: Path) -> None:
    with (folder / "scenario.yaml").open("a") as file:
        file.writelines(f"key{number}: 1\n" for number in range(6000))


def many_tiles_of_one_pixel(folder: Path) -> None:
    edit(folder / "scenario.yaml", "width: 8, height: 8", "width: 1, height: 1")
    edit(folder / "scenario.yaml", "images: 4", f"images: {2**26}")
    edit(folder / "scenario.yaml", '"5": 3', f'"5": {2**26 - 1}')


def pipe(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def both(*damages: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for one in damages:
            one(folder)

    return damage


DIGITS = "9" * 5000
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "6,000 unknown keys": (unknown_keys, "has more than 20 errors: correct these first"),
    "10^18 images": (
        both(scenario("images: 4", f"images: {10**18}"), scenario('"5": 3', f'"5": {10**18 - 1}')),
        "sheets.correction.images: must be <= 65536",
    ),
    "2^26 images of one pixel": (many_tiles_of_one_pixel, "sheets.correction.images: must be <= 65536"),
    "5,000 digits": (scenario("failed: 58", f"failed: {DIGITS}"), "failure_rate.failed: must be a whole number"),
    "4,000 digits": (scenario("failed: 58", f"failed: {DIGITS[:4000]}"), "failed is 9999"),
    "5,000 digits of a format": (scenario("format: 2", f"format: {DIGITS}"), "format: must be a whole number"),
    "a million values": (scenario("excluded: []", f"excluded: [{'x,' * 10**6}]"), "it holds more than 100,000 values"),
    "99,000 wrong values": (scenario("excluded: []", f"excluded: [{'x,' * 99_000}]"), "has more than 20 errors"),
    "a bound of 400 digits": (scenario("bounds: {}", f"bounds: {{min_accuracy: {'9' * 400}}}"), "bounds: "),
    "a key of a megabyte": (content("scenario.yaml", b"k" * 10**6 + b": 1"), "scenario.yaml"),
    "99,000 lists deep": (content("scenario.yaml", b"[" * 99_000), "scenario.yaml:1"),
    "lists in block style": (content("scenario.yaml", b"- " * 99_000), "scenario.yaml:1"),
    "NUL in a note": (scenario('notes: ""', 'notes: "\0"'), "not valid YAML"),
    "surrogate in a note": (scenario('notes: ""', 'notes: "\\ud800"'), "scenario.yaml"),
    "surrogate as bytes": (content("scenario.yaml", b'notes: "\xed\xa0\x80"'), "is not UTF-8 text"),
    "pipe as scenario.yaml": (pipe("scenario.yaml"), "is not a file"),
    "pipe as machine.json": (pipe("machine.json"), "is not a file"),
    "pipe as sheet": (pipe("held_out.png"), "is not a file"),
    "pipe as store.yaml": (pipe("../store.yaml"), "is not a file"),
    "pipe as votes": (pipe("votes/anna.yaml"), "is not a file"),
    "classes twice": (store('"1", "2"', '"0", "3"'), "classes: classes '0', '3' are given twice"),
    "30,000 unknown classes": (
        votes('"3": [0]', "\n    ".join(f'"c{number}": []' for number in range(30_000))),
        "has more than 20 errors",
    ),
    "machine.json: 10^6 levels": (content("machine.json", b"[" * 10**6), "is not valid JSON"),
    "machine.json: 900 levels": (content("machine.json", b"[" * 900 + b"]" * 900), "does not match the hash"),
    "machine.json: 5,000 digits": (content("machine.json", f'{{"format": {DIGITS}}}'.encode()), "is not valid JSON"),
    "machine.json: 4,000 digits": (
        content("machine.json", f'{{"format": {DIGITS[:4000]}}}'.encode()),
        "has format 9999",
    ),
    "machine.json: five million lists": (
        content("machine.json", b"[" + b"[]," * 5_000_000 + b"1]"),
        "is not valid JSON",
    ),
    "machine.json: a million keys": (
        content("machine.json", b"{" + b",".join(b'"%d":1' % number for number in range(10**6)) + b"}"),
        "is not valid JSON",
    ),
    "machine.json: key twice": (machine('"format": 2', '"format": 2, "format": 2'), "is not valid JSON"),
    "machine.json: two million wrong numbers": (
        machine("[0.5, -1.0]", json.dumps(["x"] * 2_000_000)),
        "region.mean.0: must be a number",
    ),
    "machine.json: 60,000 unknown keys": (
        machine('"format": 2', ", ".join(['"format": 2', *(f'"k{number}": 1' for number in range(60_000))])),
        "has more than 20 errors",
    ),
    "machine.json: surrogate": (machine('"3": 4', '"\\ud800": 4'), "'\\ud800' is not one of the classes"),
    "machine.json: NUL": (machine('"3": 4', '"\\u0000": 4'), "'\\x00' is not one of the classes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_store_is_named(folder: Path, name: str) -> None:
    damage, words = HOSTILE[name]
    damage(folder)
    (outcome,) = outcomes([lambda: [problem for problem in use(folder.parent) if words in problem]])
    assert outcome.kind == "value", outcome
    assert words in outcome.text.encode().decode("unicode_escape"), use(folder.parent)


def test_a_format_1_of_seven_kilobytes_takes_no_memory(tmp_path: Path) -> None:
    shutil.copytree(FORMAT_1, tmp_path / "digits")
    path = next((tmp_path / "digits").glob("*/scenario.yaml"))
    text, lines = path.read_text(), []
    for line in text.splitlines():
        key, _, rest = line.strip().partition(":")
        if key == "images":
            line = line.replace(rest, f" {10**18}")
        if key == "predicted_tiles":
            line = line.partition(":")[0] + ": {}"
        lines.append(line)
    assert text != "\n".join(lines)
    path.write_text("\n".join(lines))
    (outcome,) = outcomes([lambda: use(tmp_path / "digits")])
    assert outcome.kind == "value", outcome
    assert path.parent.name in outcome.text


@pytest.fixture
def baseline(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "good.json"
    images = Predictions("1" * 64, ("3", "5"), (0.5, 0.75))
    save_baseline(
        path, Baseline({"digits": SubjectBaseline("f" * 64, {"a-b": images}, images, ((1.0, 2.0), (3.0, 4.0)))})
    )
    data: dict[str, Any] = json.loads(path.read_text())
    return data


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["3", "3"]}, "a class is given twice"),
        ({"classes": ["3"]}, "is not a baseline"),
        ({"logits": [[1.0], [1.0, 2.0]]}, "the rows of logits differ in length"),
        ({"test": {"images": "1", "predicted": [0, 0], "confidences": [0.5]}}, "a confidence for each image"),
        ({"test": {"images": "1", "predicted": [0], "confidences": [1.5]}}, "must be <= 1"),
        ({"test": {"images": "1", "predicted": [0], "confidences": [float("nan")]}}, "is not a baseline"),
        ({"test": {"images": "1", "predicted": [10**4000], "confidences": [0.5]}}, "is not a baseline"),
        ({"test": {"images": "1", "predicted": ["x"] * 2_000_000, "confidences": []}}, "is not a baseline"),
        ({"store": "0" * 64}, "was changed by hand or by a merge"),
    ],
)
def test_a_baseline_that_contradicts_itself_is_refused(
    tmp_path: Path, baseline: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "baseline.json"
    baseline["subjects"]["digits"] |= change
    path.write_text(json.dumps(baseline))
    (outcome,) = outcomes([partial(load_baseline, path)])
    assert outcome.kind == "sentence"
    assert words in outcome.text
    assert len(outcome.text) < 1000


READERS: dict[str, Callable[[Path], object]] = {
    "baseline": load_baseline,
    "results": lambda path: load_results(path, path.parent),
    "label studio": lambda path: read_export(path.read_text()),
    "ground truth": lambda path: read_manifest(path.read_text()),
}


@pytest.mark.parametrize("reader", READERS)
def test_hostile_json_is_one_sentence(tmp_path: Path, reader: str) -> None:
    texts = [
        "[" * 10**6,
        '{"a":' * 10**6,
        "[" * 900 + "]" * 900,
        f'{{"format": {DIGITS}}}',
        f'{{"format": {DIGITS[:4000]}}}',
        f'[{{"data": {{}}, "id": {DIGITS}}}]',
        "[" + "[]," * 5_000_000 + "1]",
        "{" + ",".join(f'"{number}":1' for number in range(10**6)) + "}",
        '{"format": 2, "format": 2}',
        '{"format": 2, "\\ud800": 1}',
        '{"format": 2, "scenarios": {"\\ud800": 1}}',
        '{"format": NaN}',
        "\0",
        "",
    ]
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(text)
    for text, outcome in zip(texts, outcomes(partial(READERS[reader], path) for path in paths), strict=True):
        assert outcome.kind == "sentence" or reader == "ground truth", (text[:50], outcome)
        assert outcome.kind != "failure", (text[:50], outcome)
        assert len(outcome.text) < 1000


@pytest.mark.parametrize("reader", ["baseline", "results"])
def test_a_pipe_a_device_and_a_huge_file_are_not_read(tmp_path: Path, reader: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(10**12)
    paths = [tmp_path / name for name in ("pipe", "zero", "huge")]
    for outcome in outcomes([partial(READERS[reader], path) for path in paths], seconds=1):
        assert outcome.kind == "sentence", outcome
        assert len(outcome.text) < 1000


def test_what_is_too_long_to_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "baseline.json"
    save_baseline(path, Baseline())
    before = path.read_text()
    monkeypatch.setattr(json_text, "MAX_JSON_BYTES", 1000)
    images = Predictions("1" * 64, ("3",) * 500, (0.5,) * 500)
    with pytest.raises(DefuseError, match=r"baseline\.json has \d,\d+ bytes, more than the limit of 1,000"):
        save_baseline(path, Baseline({"digits": SubjectBaseline("f", {}, images)}))
    assert path.read_text() == before
    assert asdict(load_baseline(path)) == {"subjects": {}}
