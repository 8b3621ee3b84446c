"""Round trips through files in the documented formats of Label Studio and SageMaker Ground Truth."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pytest_defuse.cli import main
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import exclude, plant, random_tiles

Item = dict[str, Any]


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A candidate of twelve grey tiles a sheet, of which one is excluded, in a repository."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    planted = plant(Store(tmp_path / "fixtures" / "digits"), random_tiles(12), random_tiles(12, seed=1))
    return exclude(planted, "correction", 1)


def tasks(*options: str) -> list[Item]:
    assert main(["export", "label-studio", "out", *options]) == 0
    found: list[Item] = json.loads(Path("out/digits/tasks.json").read_text())
    return found


def manifest(*options: str) -> list[Item]:
    assert main(["export", "ground-truth", "out", "--prefix", "s3://bucket/defuse/", *options]) == 0
    return [json.loads(line) for line in Path("out/digits/input.manifest").read_text().splitlines()]


def annotation(choice: str, who: Any = 10, **changes: Any) -> Item:
    """An annotation as Label Studio exports it."""
    return {
        "id": 1001,
        "completed_by": who,
        "result": [
            {
                "id": "Dx_aB91ISN",
                "type": "choices",
                "value": {"choices": [choice]},
                "from_name": "class",
                "to_name": "image",
                "origin": "manual",
            }
        ],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2021-03-09T22:16:08.728353Z",
        "updated_at": "2021-03-09T22:16:08.728378Z",
        "lead_time": 4.288,
        "task": 1,
        **changes,
    }


def label_studio(annotated: list[Item], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Import an export; exit code and lines, relative to the file's name."""
    return imported("label-studio", json.dumps(annotated), capsys)


def ground_truth(lines: list[Item], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    return imported("ground-truth", "".join(json.dumps(line) + "\n" for line in lines), capsys)


def imported(service: str, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    Path("answers").write_text(text)
    capsys.readouterr()
    code = main(["import", service, "answers"])
    out, err = capsys.readouterr()
    return code, (out + err).splitlines()


def cast(scenario: Scenario) -> dict[str, tuple[str, dict[int, str | None]]]:
    """All votes on the correction sheet: annotator -> (kind, tile -> class)."""
    return {v.annotator: (v.kind, v.correction.by_tile if v.correction else {}) for v in scenario.votes()}


def test_tiles_go_out_as_their_exact_pixels_without_a_word_of_the_model(scenario: Scenario) -> None:
    found = tasks()
    assert [task["data"]["defuse-tile"].rpartition("/")[2] for task in found] == [*"0234567891"[:9], "10"]
    pixels = random_tiles(12)
    for task in found:
        data = task["data"]
        number = int(data["defuse-tile"].rpartition("/")[2])
        path = Path("out", data["image"].removeprefix("/data/local-files/?d="))
        np.testing.assert_array_equal(np.array(Image.open(path)), pixels[number, 0])
        assert set(data) == {"image", "defuse-tile", "defuse-sheet"}
        assert "predictions" not in task


def test_colour_goes_out_too(tmp_path: Path, scenario: Scenario) -> None:
    pixels = random_tiles(2, channels=3)
    plant(Store(tmp_path / "fixtures" / "pets"), pixels, pixels[::-1], "cat", "dog", ("cat", "dog"))
    assert main(["export", "label-studio", "out", "--held-out"]) == 0
    found = json.loads(Path("out/pets/tasks.json").read_text())
    assert len(found) == 4
    path = Path("out", found[1]["data"]["image"].removeprefix("/data/local-files/?d="))
    np.testing.assert_array_equal(np.array(Image.open(path)), pixels[1].transpose(1, 2, 0))


def test_the_labeling_interface_offers_every_class_and_none(scenario: Scenario) -> None:
    tasks()
    view = ElementTree.parse("out/digits/labeling-config.xml").getroot()
    image, choices = view.find("Image"), view.find("Choices")
    assert image is not None
    assert choices is not None
    assert (image.get("value"), choices.get("toName"), choices.get("choice")) == ("$image", "image", "single-radio")
    assert [choice.get("value") for choice in choices] == [*"0123456789", "None of the above"]


def test_label_studio_round_trip(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    found = tasks()
    for number, task in enumerate(found):
        task |= {"id": number + 1, "project": 83, "predictions": []}
        task["annotations"] = [annotation("3"), annotation("None of the above" if number == 2 else "5", who=11)]
    code, lines = label_studio(found, capsys)
    assert (code, lines) == (
        0,
        ["10 votes of label-studio-10", "10 votes of label-studio-11", "on 1 scenario; 0 items without an answer"],
    )
    votes = cast(scenario)
    assert votes["label-studio-10"] == ("human", dict.fromkeys([0, *range(2, 11)], "3"))
    assert votes["label-studio-11"] == ("human", dict.fromkeys([0, *range(2, 11)], "5") | {3: None})


def test_label_studio_skips_the_unanswered_takes_the_last_and_marks_models(
    scenario: Scenario, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three, four, *_ = tasks()
    one["annotations"] = [
        annotation("5", who={"id": 4, "email": "Anna@Example.org"}, updated_at="2021-03-10"),
        annotation("3", who={"id": 4, "email": "Anna@Example.org"}, updated_at="2021-03-09"),
    ]
    two["annotations"] = [annotation("3", was_cancelled=True), annotation("3", result=[])]
    three["predictions"] = [{"model_version": "Model 1", "score": 0.9, "result": annotation("8")["result"]}]
    assert label_studio([one, two, three, four], capsys) == (
        0,
        ["1 vote of anna@example.org", "1 vote of model-1", "on 1 scenario; 2 items without an answer"],
    )
    assert cast(scenario) == {"anna@example.org": ("human", {0: "5"}), "model-1": ("model", {3: "8"})}


def test_a_second_import_adds_to_the_first(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, *_ = tasks()
    label_studio([one | {"annotations": [annotation("3")]}], capsys)
    label_studio([one | {"annotations": [annotation("5")]}, two | {"annotations": [annotation("3")]}], capsys)
    assert cast(scenario) == {"label-studio-10": ("human", {0: "5", 2: "3"})}


def test_ground_truth_round_trip(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    lines = manifest()
    assert lines[0]["source-ref"] == f"s3://bucket/defuse/digits/{scenario.id}/correction-000.png"
    labels = json.loads(Path("out/digits/labels.json").read_text())
    assert [entry["label"] for entry in labels["labels"]] == [*"0123456789", "None of the above"]
    for number, line in enumerate(lines):
        line |= {
            "digit": "3",
            "digit-metadata": {
                "class-name": "None of the above" if number == 0 else "3",
                "confidence": 0.94,
                "type": "groundtruth/image-classification",
                "job-name": "labeling-job/Which-Digit",
                "human-annotated": "yes",
                "creation-date": "2018-10-18T22:18:13.527256",
            },
        }
    assert ground_truth(lines, capsys) == (
        0,
        ["10 votes of which-digit", "on 1 scenario; 0 items without an answer"],
    )
    assert cast(scenario) == {"which-digit": ("human", {0: None} | dict.fromkeys(range(2, 11), "3"))}


def test_ground_truth_answers_of_each_worker(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    line, *_ = manifest()
    content = {"crowd-image-classifier": {"label": "3"}}
    line |= {
        "digit": {
            "annotationsFromAllWorkers": [
                {"workerId": "private.us-east-1.166160A2", "annotationData": {"content": json.dumps(content)}},
                {"workerId": "private.us-east-1.ef02e9a5", "annotationData": {"content": '{"label": "5"}'}},
            ]
        },
        "digit-metadata": {"type": "groundtruth/custom", "job-name": "digit", "human-annotated": "yes"},
    }
    code, _ = ground_truth([line], capsys)
    assert code == 0
    assert cast(scenario) == {
        "private.us-east-1.166160a2": ("human", {0: "3"}),
        "private.us-east-1.ef02e9a5": ("human", {0: "5"}),
    }


def test_ground_truth_by_a_machine_and_what_failed(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, three, *_ = manifest()
    metadata = {"class-name": "3", "type": "groundtruth/image-classification", "job-name": "auto"}
    one |= {"digit": "3", "digit-metadata": metadata | {"human-annotated": "no"}}
    two |= {"digit": "-1", "digit-metadata": metadata | {"failure-reason": "The image cannot be read."}}
    code, lines = ground_truth([one, two, three], capsys)
    assert (code, lines[-1]) == (0, "on 1 scenario; 2 items without an answer")
    assert cast(scenario) == {"auto": ("model", {0: "3"})}


def spoil(key: str, value: Any) -> Callable[[Item], None]:
    def change(task: Item) -> None:
        task["data"][key] = value

    return change


WRONG: list[tuple[Callable[[Item], None], str]] = [
    (spoil("defuse-tile", "digits/9-as-9-000000/correction/0"), "there is no scenario digits/9-as-9-000000."),
    (spoil("defuse-tile", "../../etc/correction/0"), "pytest-defuse export did not write it."),
    (spoil("defuse-tile", None), "defuse-tile is None: pytest-defuse export did not write it."),
    (spoil("defuse-sheet", "0" * 64), "has other tiles in correction.png than at the export: export it again."),
    (lambda task: task.update(annotations=[annotation("cat")]), "'cat' is not one of the classes 0, 1, 2"),
    (lambda task: task["annotations"][0]["result"][0]["value"].update(choices=["3", "5"]), "exactly one class"),
    (lambda task: task["annotations"][0]["result"].append(task["annotations"][0]["result"][0]), "exactly one class"),
]


@pytest.mark.parametrize(("damage", "words"), WRONG)
def test_nothing_is_imported_where_one_answer_cannot_be(
    scenario: Scenario, damage: Callable[[Item], None], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tasks()
    for number, task in enumerate(found, start=1):
        task |= {"id": number, "annotations": [annotation("3")]}
    damage(found[4])
    damage(found[7])
    code, lines = label_studio(found, capsys)
    assert code == 2
    assert len(lines) == 3
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines[:2]] == ["task 5", "task 8"]
    assert all(line.startswith("answers: ") and words in line for line in lines[:2])
    assert lines[2] == "Nothing was imported."
    assert scenario.votes() == []


def test_a_tile_that_is_not_there_is_named(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    task = tasks()[0] | {"annotations": [annotation("3")]}
    task["data"]["defuse-tile"] = f"digits/{scenario.id}/correction/99"
    assert f"digits/{scenario.id} has no tile 99 in correction.png." in label_studio([task], capsys)[1][0]


def test_one_name_is_a_person_or_a_model(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, *_ = tasks()
    one["annotations"] = [annotation("3", who=1)]
    label_studio([one], capsys)
    two["predictions"] = [{"model_version": "label-studio-1", "result": annotation("3")["result"]}]
    code, lines = label_studio([two], capsys)
    assert (code, lines[-1]) == (2, "Nothing was imported.")
    assert "has voted on digits/" in lines[0]


@pytest.mark.parametrize(
    ("service", "text", "words"),
    [
        ("label-studio", "{", "It is not JSON ("),
        ("label-studio", '[{"image": "x", "class": "3"}]', "It is not a list of tasks with data"),
        ("ground-truth", '{"source-ref": "x"}\n[1]\n{"a"', "answers: line 2: it is not a JSON object."),
        (
            "ground-truth",
            '{"box": {"annotations": []}, "box-metadata": {"type": "groundtruth/object-detection"}}',
            "answers: line 1: box is of type groundtruth/object-detection, not of an image classification.",
        ),
        (
            "ground-truth",
            '{"x": {"annotationsFromAllWorkers": [{"workerId": "w"}]}, "x-metadata": {}}',
            "answers: line 1: the answer of a worker cannot be read.",
        ),
    ],
)
def test_a_file_of_another_kind_is_said(
    scenario: Scenario, service: str, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = imported(service, text, capsys)
    assert code == 2
    assert words in lines[0]
    assert scenario.votes() == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["export", "ground-truth", "out"], "name the place with --prefix s3://bucket/folder/"),
        (["export", "label-studio", "fixtures"], "fixtures is not empty: name a new folder."),
        (["export", "label-studio", "out", "--tiles", "0"], "--tiles is 0"),
        (["export", "label-studio", "out", "--only", "no"], "There is no scenario 'no'"),
        (["import", "label-studio", "not-there"], "not-there cannot be read"),
    ],
)
def test_misuse_is_one_sentence(
    scenario: Scenario, command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert words in capsys.readouterr().err
    assert not Path("out").exists()


def test_an_export_that_fails_leaves_nothing_and_that_of_a_killed_one_goes(scenario: Scenario) -> None:
    sheet = scenario.sheet_file("correction")
    pixels = sheet.read_bytes()
    sheet.write_bytes(b"")
    assert main(["export", "label-studio", "out"]) == 2
    assert list(Path("out").iterdir()) == []
    sheet.write_bytes(pixels)
    Path("out/.export.0a1b2c3d/digits").mkdir(parents=True)
    Path("out/.export.0a1b2c3d/digits/tasks.json").touch()
    assert len(tasks()) == 10
    assert [path.name for path in Path("out").iterdir()] == ["digits"]


def test_a_class_called_none_of_the_above_is_refused(tmp_path: Path, scenario: Scenario, capsys) -> None:
    names = ("none of the Above", "cat")
    plant(Store(tmp_path / "fixtures" / "odd"), random_tiles(), random_tiles(seed=1), "cat", names[0], names)
    assert main(["export", "label-studio", "out"]) == 2
    assert "the answer for no class" in capsys.readouterr().err
    assert not Path("out").exists()
