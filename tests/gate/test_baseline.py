import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.gate.baseline import (
    NO_BASELINE,
    Baseline,
    SubjectBaseline,
    load_baseline,
    save_baseline,
    subject_baseline,
)
from pytest_defuse.gate.predictions import LabelledPredictions, Predictions
from pytest_defuse.gate.results import ModelResult, ScenarioResult
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

ID = "3-as-5-a1b2c3"


def predictions(sha256: str, *predicted: str) -> Predictions:
    return Predictions(sha256 * 64, predicted, tuple(0.5 + index / 100 for index in range(len(predicted))))


@pytest.fixture
def baseline() -> Baseline:
    return Baseline(
        {
            "digits": SubjectBaseline(
                model="f" * 64,
                scenarios={ID: predictions("1", "3", "3", "5", "3"), "8-as-3-d4e5f6": predictions("2", "ü", 'a "b"')},
                test=predictions("3", "3", "8"),
                logits=((0.5, -1.25e-07, 3.0), (float("inf"), 2.0, 1.0)),
                classes=("8", "3", "5", 'a "b"', "ü"),
            ),
            "letters": SubjectBaseline("e" * 64, {}, predictions("4", "a")),
        }
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "baseline.json"


def test_what_was_saved_is_loaded(path: Path, baseline: Baseline) -> None:
    save_baseline(path, baseline)
    assert load_baseline(path) == baseline
    save_baseline(path, Baseline())
    assert load_baseline(path) == Baseline()


def test_what_a_killed_run_left_goes_and_files_of_others_stay(path: Path, baseline: Baseline) -> None:
    others = [path.with_name(name) for name in (".baseline.json.swp", ".other.json.0a1b2c3d", "baseline.json.0a1b2c3d")]
    left = path.with_name(".baseline.json.0a1b2c3d")
    for file in (left, *others):
        file.touch()
    save_baseline(path, baseline)
    assert set(path.parent.iterdir()) == {path, *others}
    link = path.with_name("link.json")
    link.symlink_to(path)
    left.touch()
    save_baseline(link, baseline)
    assert set(path.parent.iterdir()) == {path, link, *others}


def test_a_baseline_is_small_and_one_line_a_set_of_images(path: Path) -> None:
    """In git, a change of one scenario is a change of one line."""
    scenarios = {f"s-{n}": predictions("1", *["three", "eight"] * 128) for n in range(20)}
    save_baseline(path, Baseline({"digits": SubjectBaseline("f" * 64, scenarios, predictions("3", *["three"] * 1000))}))
    assert path.stat().st_size < 100_000
    assert sum('"predicted"' in line for line in path.read_text().splitlines()) == 21


def test_names_come_back_for_the_same_images(baseline: Baseline) -> None:
    digits = baseline.of("digits")
    assert digits.of_scenario(ID, "1" * 64, 4) == ("3", "3", "5", "3")
    assert digits.of_test("3" * 64, 2) == ("3", "8")


def test_images_that_the_baseline_does_not_contain_are_none(baseline: Baseline) -> None:
    assert baseline.of("digits").of_scenario("9-as-4-a1b2c3", "1" * 64, 2) == (None, None)
    assert baseline.of("cats").of_test("3" * 64, 2) == (None, None)


def test_other_images_are_refused(baseline: Baseline) -> None:
    with pytest.raises(DefuseError, match=f"The baseline's images of scenario {ID} are not the store's: save"):
        baseline.of("digits").of_scenario(ID, "9" * 64, 4)
    with pytest.raises(DefuseError, match="The baseline's images of the test set are not the subject's: save"):
        baseline.of("digits").of_test("9" * 64, 2)


def test_a_file_that_cannot_be_read_is_answered_with_how_to_make_it(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DefuseError, match=re.escape(f"make it with --defuse-save-baseline {path}; --defuse-first-run")):
        load_baseline(path)


@pytest.mark.parametrize("content", [b"", b"{", b"no json", b"\xff\xfe", b"[]", b"null", b"1", b'"text"', b"{}"])
def test_a_file_that_is_no_baseline_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DefuseError, match="is not a baseline: remove it, and make a new one"):
        load_baseline(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scenarios": []},
        {"test": 3},
        {"model": None},
        {"classes": ["3"]},
        {"classes": ["3"] * 9},
        {"more": 1},
        {"scenarios": {"a": {}}},
        {"test": {"images": "1", "predicted": [], "confidences": []}},
        {"test": {"images": "1", "predicted": [-1], "confidences": [0.5]}},
        {"test": {"images": "1", "predicted": ["3"], "confidences": [0.5]}},
        {"test": {"images": "1", "predicted": [0], "confidences": [0.5, 0.5]}},
        {"test": {"images": "1", "predicted": [0], "confidences": [0.5], "more": 1}},
    ],
    ids=str,
)
def test_a_baseline_with_wrong_parts_is_refused(path: Path, baseline: Baseline, changes: dict[str, Any]) -> None:
    save_baseline(path, baseline)
    data = json.loads(path.read_text())
    data["subjects"]["digits"] |= changes
    path.write_text(json.dumps(data))
    with pytest.raises(DefuseError, match="is not a baseline: remove it, and make a new one"):
        load_baseline(path)


def test_a_baseline_whose_store_was_changed_is_refused(path: Path, baseline: Baseline) -> None:
    save_baseline(path, baseline)
    path.write_text(path.read_text().replace(ID, "3-as-5-000000"))
    with pytest.raises(DefuseError, match="was changed by hand or by a merge: remove it, and make a new one"):
        load_baseline(path)


def test_format_2_is_read(path: Path, baseline: Baseline) -> None:
    save_baseline(path, baseline)
    data = json.loads(path.read_text())
    for part in data["subjects"].values():
        del part["logits"], part["all_classes"]
    path.write_text(json.dumps(data | {"format": 2}))
    digits = load_baseline(path).of("digits")
    assert digits == replace(baseline.of("digits"), logits=None, classes=())


def classifier(scale: float, bias: float = 0.0, normalize: Any = None) -> Classifier:
    model = Scaled(scale)
    model.head.bias.data += bias
    return Classifier(model, 2, image_shape=(1, 4, 4), normalize=normalize)


class Scaled(nn.Module):
    """Its scale is neither in its state nor in its ``repr``."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)
        self.head.weight.data = torch.linspace(-1, 1, 32).view(2, 16)
        self.head.bias.data.zero_()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.head(x.flatten(1))


def test_the_same_model_has_equal_weights_preprocessing_and_logits(path: Path) -> None:
    model = ModelResult.of("digits", classifier(1.0).identity, ("cat", "dog"))
    save_baseline(path, Baseline.of_run([model], [], []))
    saved = load_baseline(path).of("digits")
    assert saved.same_model(classifier(1.0))
    assert saved.same_model(classifier(1.001)), "rounding"
    assert not saved.same_model(classifier(-1.0))
    assert not saved.same_model(classifier(1.0, bias=1e-6))
    assert not saved.same_model(classifier(1.0, normalize=lambda x: x - 1e-3))


def test_the_same_model_of_format_2_has_equal_weights() -> None:
    saved = SubjectBaseline(classifier(1.0).hash, {})
    assert saved.same_model(classifier(-1.0))
    assert not saved.same_model(classifier(1.0, bias=1e-6))


@pytest.mark.parametrize("number", [1, 4])
def test_another_format_is_refused_by_name(path: Path, baseline: Baseline, number: int) -> None:
    save_baseline(path, baseline)
    path.write_text(path.read_text().replace('"format": 3', f'"format": {number}'))
    with pytest.raises(
        DefuseError,
        match=f"has baseline format {number}, this pytest-defuse reads formats 2 and 3: remove it, and make",
    ):
        load_baseline(path)


def test_an_update_changes_its_own_sets_and_keeps_the_others() -> None:
    def part(model: str, **predicted: str) -> SubjectBaseline:
        sets = {name: Predictions("1" * 64, (answer,), (0.5,)) for name, answer in predicted.items()}
        return SubjectBaseline(model, sets, sets.pop("test", None), ((1.0,),))

    old = Baseline({"digits": part("m", a="3", b="3", test="3"), "letters": part("l", c="x")})
    new = old.updated(Baseline({"digits": part("m", b="5")}))
    assert new == Baseline({"digits": part("m", a="3", b="5", test="3"), "letters": part("l", c="x")})
    of_two_models = old.updated(Baseline({"digits": part("n", b="5")})).of("digits")
    assert of_two_models == replace(part("", a="3", b="5", test="3"), logits=None)
    replaced = old.updated(Baseline({"digits": part("n", a="1", b="5", test="7")})).of("digits")
    assert replaced == part("n", a="1", b="5", test="7")
    assert Baseline().updated(old) == old


def test_a_baseline_of_a_run_has_the_sets_of_each_subject() -> None:
    def result(subject: str, id_: str) -> ScenarioResult:
        labelled = LabelledPredictions(**vars(predictions("1", "3")), labels=("3",), baseline=(None,))
        where = {"folder": "", "tiles": (0,), "sheet_tiles": 1}
        return ScenarioResult(subject=subject, model="m", predictions=labelled, id=id_, label="3", **where)

    models = [ModelResult(name, name[0], ((1.0,),), ("3", "5")) for name in ("digits", "letters")]
    baseline = Baseline.of_run(models, [result("digits", "a"), result("letters", "b")], [])
    assert {name: [*part.scenarios] for name, part in baseline.subjects.items()} == {"digits": ["a"], "letters": ["b"]}
    assert baseline.of("digits").classes == ("3", "5")


def subject(name: str, *classes: str) -> Subject:
    pairs = [(torch.zeros(1, 4, 4), 0)]
    return Subject(name, nn.Flatten(), classes, pairs, pairs)


def test_a_subject_that_the_baseline_does_not_contain_is_an_error_except_on_a_first_run(
    path: Path, baseline: Baseline
) -> None:
    save_baseline(path, baseline)
    with pytest.raises(DefuseError, match=r"is a baseline of 'digits', 'letters', not of 'digit': correct the subject"):
        subject_baseline(path, subject("digit", "3", "5"))
    assert subject_baseline(path, subject("digit", "3", "5"), first_run=True) == replace(NO_BASELINE, first_run=True)
    save_baseline(path, Baseline())
    with pytest.raises(DefuseError, match="is a baseline of no subject, not of 'digits'"):
        subject_baseline(path, subject("digits", "3", "5"))


def test_a_baseline_of_other_classes_is_refused(path: Path, baseline: Baseline) -> None:
    save_baseline(path, baseline)
    classes = baseline.of("digits").classes
    for own in (classes, (*classes, "9")):
        assert subject_baseline(path, subject("digits", *own)) == baseline.of("digits")
    with pytest.raises(
        DefuseError, match=r"class 0 is '8', but in subject 'digits' it is 'ü': .*, save a new one with"
    ):
        subject_baseline(path, subject("digits", *classes[::-1]), first_run=True)
    subject_baseline(path, subject("letters", "z", "a"))  # a file that does not have the classes in order


def test_an_update_does_not_mix_classes() -> None:
    def part(*classes: str, **predicted: str) -> Baseline:
        sets = {name: Predictions("1" * 64, (answer,), (0.5,)) for name, answer in predicted.items()}
        return Baseline({"digits": SubjectBaseline("m", sets, classes=classes)})

    old = part("3", "5", a="3", b="3")
    with pytest.raises(DefuseError, match="is a baseline of other classes, or of another order: remove it"):
        old.updated(part("5", "3", a="5"))
    assert old.updated(part("5", "3", a="5", b="5")) == part("5", "3", a="5", b="5")
    assert old.updated(part("3", "5", "7", a="7")) == part("3", "5", "7", a="7", b="3")
    assert part(a="3", b="3").updated(part("3", "5", a="5")) == part(a="5", b="3"), "the order of b is not known"
