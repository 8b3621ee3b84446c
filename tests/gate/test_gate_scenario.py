import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.gate.baseline import NO_BASELINE, Baseline, SubjectBaseline
from pytest_defuse.gate.chance import chance_sentence
from pytest_defuse.gate.gate import GatedAccuracy, GatedScenario, gate_scenarios, gate_test, gate_together
from pytest_defuse.gate.predictions import Predictions, predict_scenarios, predict_test
from pytest_defuse.runtime.errors import DefuseError, InconclusiveError
from pytest_defuse.scenarios.bounds import Bounds
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.sheets import Pixels, pixel_hash
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.writing import new_document
from pytest_defuse.subject.subject import Subject
from tests.scenarios.planting import exclude, machine_of, plant, record_of

CLASSES = ("dark", "medium", "bright")
SHADES = {"dark": 20, "medium": 128, "bright": 235}


class Brightness(nn.Module):
    """Takes an image for the class whose shade is nearest to its mean."""

    def forward(self, images: Tensor) -> Tensor:
        shades = torch.tensor(list(SHADES.values())) / 255
        return -(images.mean((1, 2, 3))[:, None] - shades).abs()


class Coin(nn.Module):
    """Takes an image for any class."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.randn(len(images), 3) + np.random.standard_normal()


def shaded(*names: str) -> Pixels:
    """Tiles, 4 x 4 grey, that the model takes for these classes."""
    return np.stack([np.full((1, 4, 4), SHADES[name], dtype=np.uint8) for name in names])


HELD_OUT = shaded(*["bright"] * 6, *["dark"] * 3, "medium")


@pytest.fixture
def subject() -> Subject:
    pairs = [(tile[0], index) for index, tile in enumerate(shaded(*CLASSES))]
    return Subject(name="shades", model=Brightness(), classes=CLASSES, train=pairs, test=pairs)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "shades")


@pytest.fixture
def scenario(store: Store) -> Scenario:
    """Ten held-out tiles that show "bright", of which the model takes six for that."""
    return plant(store, shaded("dark"), HELD_OUT, "bright", "dark", CLASSES, status="accepted", label="bright")


def gate(scenario: Scenario, subject: Subject, baseline: Baseline | None = None, **bounds: float) -> GatedScenario:
    model = subject.classifier()
    predictions = predict_scenarios(subject, model, [scenario])
    part = (baseline or Baseline()).of(subject.name)
    [verdict] = gate_scenarios([(scenario, Bounds.of(bounds))], predictions, model, part).values()
    if isinstance(verdict, DefuseError):
        raise verdict
    return GatedScenario(scenario, verdict)


def baseline_of(scenario: Scenario, *predicted: str) -> Baseline:
    predictions = Predictions(pixel_hash(HELD_OUT), predicted, (0.5,) * len(predicted))
    return Baseline({"shades": SubjectBaseline("m", {scenario.id: predictions})})


def test_the_held_out_tiles_are_counted(scenario: Scenario, subject: Subject) -> None:
    scenario.sheet_file("correction").unlink()
    gated = gate(scenario, subject)
    assert (gated.id, gated.label) == (scenario.id, "bright")
    assert (gated.accuracy.correct, gated.accuracy.total) == (6, 10)
    assert gated.predictions == ("bright",) * 6 + ("dark",) * 3 + ("medium",)
    np.testing.assert_array_equal(gated.images.numpy(), HELD_OUT)


def test_a_failure_is_one_sentence_with_interval_bound_and_errors(scenario: Scenario, subject: Subject) -> None:
    gated = gate(scenario, subject, min_accuracy=0.9)
    assert gated.sentence == (
        f"scenario {scenario.id} (label 'bright'): accuracy 6/10 = 60.0% (95% interval 31.3% to 83.2%) is below the "
        "bound 90.0% (min_accuracy); misclassified as 'dark' (3), 'medium' (1)."
    )
    with pytest.raises(AssertionError) as caught:
        gated.check()
    assert str(caught.value) == gated.sentence


def test_a_bound_that_passes_is_named(scenario: Scenario, subject: Subject) -> None:
    gated = gate(scenario, subject, min_accuracy=0.6)
    gated.check()
    assert "meets the bound 60.0% (min_accuracy)" in gated.sentence


def test_too_few_images_are_inconclusive(scenario: Scenario, subject: Subject) -> None:
    gated = gate(scenario, subject, min_accuracy=0.8, confidence=0.99)
    with pytest.raises(InconclusiveError) as caught:
        gated.check()
    assert str(caught.value) == gated.sentence
    assert (
        "(99% interval 24.8% to 87.2%) is not significantly different from the bound 80.0% (min_accuracy): "
        "INCONCLUSIVE, about 27 images would decide" in gated.sentence
    )


def test_a_scenario_without_errors_names_none(store: Store, subject: Subject) -> None:
    tiles = shaded("dark", "dark")
    gated = gate(plant(store, tiles, tiles, "dark", "bright", CLASSES, status="accepted", label="dark"), subject)
    assert gated.sentence.endswith("meets the bound 50.0% (no regression from discovery).")


def test_no_bound_means_no_regression_from_discovery(scenario: Scenario, subject: Subject) -> None:
    gated = gate(scenario, subject)
    assert gated.verdict.bound == 0.1  # one of the ten tiles was classified correctly at discovery
    gated.check()


def test_the_label_that_a_person_gave_counts(scenario: Scenario, subject: Subject) -> None:
    relabelled = Store.of(scenario).update(scenario.id, label="dark")
    assert gate(relabelled, subject).accuracy.correct == 3


def test_excluded_tiles_are_not_counted(scenario: Scenario, subject: Subject) -> None:
    gated = gate(exclude(scenario, "held_out", 0, 6, 7, 8), subject)
    assert (gated.accuracy.correct, gated.accuracy.total) == (5, 6)
    assert "dark" not in gated.predictions


def test_a_drop_is_measured_from_the_baseline(scenario: Scenario, subject: Subject) -> None:
    before = baseline_of(scenario, *["bright"] * 8, *["dark"] * 2)
    assert gate(scenario, subject, before, max_drop=0.1).verdict.outcome == "FAIL"
    assert gate(scenario, subject, before, max_drop=0.3).verdict.outcome == "PASS"
    assert (
        "accuracy 6/10 = 60.0% (95% interval 31.3% to 83.2%); a drop of 20.0% from the baseline (95% interval "
        in gate(scenario, subject, before, max_drop=0.1).sentence
    )


def test_a_drop_without_a_baseline_is_an_error_except_on_a_first_run(scenario: Scenario, subject: Subject) -> None:
    for baseline in (None, Baseline()):
        with pytest.raises(DefuseError, match=f"^{re.escape(str(scenario.yaml))}: max_drop needs a baseline"):
            gate(scenario, subject, baseline, max_drop=0.0)
    gated = gate(scenario, subject, Baseline({"shades": replace(NO_BASELINE, first_run=True)}), max_drop=0.0)
    gated.check()
    assert "; max_drop not evaluated: no baseline yet" in gated.sentence


def test_verdicts_do_not_depend_on_other_scenarios(store: Store, subject: Subject) -> None:
    """Under an adjustment over the run, the first would be INCONCLUSIVE among the others."""
    planted = [
        plant(
            store,
            shaded("dark"),
            shaded(*["bright"] * right, *["dark"] * wrong),
            "bright",
            "dark",
            CLASSES,
            status="accepted",
            label="bright",
        )
        for right, wrong in ((82, 18), *((9 * n, n) for n in range(3, 10)))
    ]
    model, bounds = subject.classifier(), Bounds(min_accuracy=0.9, confidence=0.95)
    predictions = predict_scenarios(subject, model, planted)
    together = gate_scenarios([(scenario, bounds) for scenario in planted], predictions, model)
    for scenario in planted:
        [alone] = gate_scenarios([(scenario, bounds)], predictions, model).values()
        assert alone == together[scenario.id, bounds]
    assert [result.outcome for result in together.values()] == ["FAIL", *["INCONCLUSIVE"] * 7]
    assert chance_sentence(list(together.values())).startswith(
        "1 of 8 scenarios tested with a confidence fail; at most 0.2"
    )
    assert chance_sentence([gate(planted[0], subject, min_accuracy=0.9).verdict]) == ""


def test_a_baseline_of_other_tiles_is_refused(scenario: Scenario, subject: Subject) -> None:
    before = baseline_of(scenario, *["bright"] * 10)
    with pytest.raises(DefuseError, match="save a new baseline"):
        gate(exclude(scenario, "held_out", 0), subject, before, max_drop=0.1)


def test_images_of_another_size_are_refused(scenario: Scenario, subject: Subject) -> None:
    larger = replace(subject, test=[(np.zeros((3, 5, 6), dtype=np.uint8), 0)])
    with pytest.raises(DefuseError) as caught:
        gate(scenario, larger)
    assert str(caught.value) == (
        f"{scenario.sheet_file('held_out')} has images of 4 x 4 grey, but the test set of subject 'shades' is "
        "6 x 5 RGB: discover again, or give the subject images of that size."
    )


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (("night", "dusk", "day"), "class 0 is 'dark', but in subject 'shades' it is 'night'"),
        (("dark", "bright", "medium"), "class 1 is 'medium', but in subject 'shades' it is 'bright'"),
        (("dark", "medium"), "class 2 is 'bright', but in subject 'shades' it is missing"),
    ],
)
def test_classes_that_are_not_those_of_the_store_are_refused(
    scenario: Scenario, subject: Subject, classes: tuple[str, ...], difference: str
) -> None:
    with pytest.raises(DefuseError) as caught:
        gate(scenario, replace(subject, classes=classes))
    store = scenario.folder.parent / "store.yaml"
    assert str(caught.value) == (
        f"{store}: {difference}: give Subject(classes=...) in the order of the model's logits; if that order has "
        "changed, change the classes in this file."
    )


def test_a_grown_model_has_further_classes_after_those_of_the_store(scenario: Scenario, subject: Subject) -> None:
    model = nn.Sequential(Brightness(), nn.ConstantPad1d((0, 1), -1.0))
    assert gate(scenario, replace(subject, model=model, classes=(*CLASSES, "blinding"))).accuracy.correct == 6


def test_classes_changed_in_the_store_are_those_of_the_model(scenario: Scenario, subject: Subject) -> None:
    store = scenario.folder.parent / "store.yaml"
    reordered = Store.of(scenario).record().model_copy(update={"classes": CLASSES[::-1]})
    store.write_text(new_document(reordered, str(store)).content.decode())
    gated = gate(Store.of(scenario).get(scenario.id), replace(subject, classes=CLASSES[::-1]))
    assert gated.accuracy.correct == 3


def test_a_candidate_without_a_label_is_refused(scenario: Scenario, subject: Subject) -> None:
    candidate = Store.of(scenario).update(scenario.id, status="candidate", label=None)
    with pytest.raises(DefuseError, match="has no label: write the class that the images show"):
        gate(candidate, subject)


def test_a_model_with_chance_in_it_is_judged_the_same_every_time(scenario: Scenario, subject: Subject) -> None:
    chancy = replace(subject, model=Coin())
    first = gate(scenario, chancy).predictions, predict_test(chancy, chancy.classifier())
    torch.manual_seed(1)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert (gate(scenario, chancy).predictions, predict_test(chancy, chancy.classifier())) == first
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])


@pytest.fixture
def tested(subject: Subject) -> Subject:
    """A test set of four images, of which the model misclassifies the third."""
    tiles = zip(shaded("bright", "dark", "medium", "dark"), (2, 0, 0, 0), strict=True)
    return replace(subject, test=[(tile[0], label) for tile, label in tiles])


def test_the_test_set_is_predicted_in_its_order(tested: Subject) -> None:
    model = tested.classifier()
    predictions = predict_test(tested, model)
    assert predictions.predicted == ("bright", "dark", "medium", "dark")
    accuracy = GatedAccuracy.of(gate_test(tested, model, predictions, None))
    assert (accuracy.correct, accuracy.total) == (3, 4)
    assert accuracy >= 0.75
    with pytest.raises(DefuseError, match="no accuracy was recorded to compare with"):
        accuracy.check()  # no bound was requested, and there is no baseline
    GatedAccuracy.of(accuracy.verdict, first_run=True).check()


def test_without_bounds_check_fails_on_a_regression(tested: Subject) -> None:
    model = tested.classifier()
    predictions = predict_test(tested, model)
    better = SubjectBaseline("m", {}, replace(predictions, predicted=("bright", "dark", "dark", "dark")))
    accuracy = GatedAccuracy.of(gate_test(tested, model, predictions, None, better))
    assert accuracy.verdict.checks == ()
    with pytest.raises(AssertionError, match="is a regression"):
        accuracy.check()


def test_a_correction_counts_the_uncorrected_predictions_too(scenario: Scenario, tested: Subject) -> None:
    model = tested.classifier()
    predictions = predict_scenarios(tested, model, [scenario])
    worse = {scenario.id: Predictions(pixel_hash(HELD_OUT), ("bright", *["dark"] * 9), (0.5,) * 10)}
    [alone] = gate_scenarios([(scenario, Bounds())], predictions, model, NO_BASELINE, worse).values()
    together = gate_together([scenario], predictions, model, None, NO_BASELINE, worse)
    test = predict_test(tested, model)
    test_set = gate_test(tested, model, test, None, NO_BASELINE, replace(test, predicted=("dark",) * 4))
    assert not isinstance(alone, DefuseError)
    assert [verdict.correct for verdict in (alone, together, test_set)] == [6, 6, 3]
    assert [verdict.correct_before for verdict in (alone, together, test_set)] == [1, 1, 3]


def test_each_tile_is_evaluated_against_its_own_label(store: Store, subject: Subject) -> None:
    """Of a scenario with labels: per image."""
    labels = ["bright"] * 7 + ["dark"] * 2 + ["bright"]
    predicted = ["bright"] * 9 + ["dark"]
    machine = machine_of(
        correction={"labels": ["dark"], "predicted": ["bright"]}, held_out={"labels": labels, "predicted": predicted}
    )
    sheets = record_of(shaded("dark"), HELD_OUT, "bright", "dark").sheets.model_dump()
    sheets["held_out"] |= {"predicted": {"bright": 9, "dark": 1}, "excluded": [0]}
    scenario = plant(
        store,
        shaded("dark"),
        HELD_OUT,
        "bright",
        "dark",
        CLASSES,
        machine=machine,
        status="accepted",
        labels="per image",
        sheets=sheets,
    )
    gated = gate(scenario, subject)
    assert (gated.accuracy.correct, gated.accuracy.total) == (7, 9)
    assert (gated.verdict.bound, gated.verdict.outcome) == (6 / 9, "PASS")
    assert gated.sentence.startswith(f"scenario {scenario.id} (label 'per image'): accuracy 7/9")
    failed = gate(scenario, subject, min_accuracy=0.9)
    assert failed.verdict.outcome == "FAIL"
    assert "'bright' as 'dark'" in failed.sentence
    assert "'bright' as 'medium'" in failed.sentence


def test_no_regression_from_discovery_says_that_the_baseline_lacks_the_scenario(
    scenario: Scenario, subject: Subject
) -> None:
    other = Baseline({"shades": SubjectBaseline("m", {"another": Predictions("1" * 64, ("dark",), (0.5,))})})
    assert gate(scenario, subject, other).verdict.reason == (
        "no regression from discovery; the baseline does not contain these images"
    )
    for known in (None, baseline_of(scenario, *["bright"] * 6, *["dark"] * 4)):
        assert "does not contain" not in gate(scenario, subject, known).verdict.reason


def test_a_scenario_with_nothing_to_compare_with_is_no_pass(store: Store, subject: Subject) -> None:
    """People reported it, so no accuracy was recorded at discovery."""
    sheets = record_of(shaded("dark"), HELD_OUT).sheets.model_dump()
    for sheet in sheets.values():
        sheet["predicted"] = None
    changes = {"method": "reported", "status": "accepted", "label": "bright", "sheets": sheets}
    scenario = plant(store, shaded("dark"), HELD_OUT, "bright", "dark", CLASSES, **changes)
    with pytest.raises(
        DefuseError, match=r"no accuracy was recorded to compare with: set a bound such as min_accuracy"
    ):
        gate(scenario, subject)
    assert gate(scenario, subject, min_accuracy=0.5).verdict.outcome == "PASS"
    assert gate(scenario, subject, baseline_of(scenario, *["bright"] * 10)).verdict.outcome == "FAIL"


def test_the_recorded_accuracy_of_all_scenarios_counts_each_image_once(store: Store, subject: Subject) -> None:
    """4 of 10 images and 1 of 2 were classified correctly at discovery: 5 of 12."""
    small = shaded("bright", "dark")
    sheets = [(HELD_OUT, {"bright": 4, "dark": 6}), (small, {"bright": 1, "dark": 1})]
    scenarios = []
    for tiles, predicted in sheets:
        record = record_of(shaded("dark"), tiles, "bright", "dark").sheets.model_dump()
        record["held_out"] |= {"predicted": predicted}
        changes = {"status": "accepted", "label": "bright", "sheets": record}
        machine = machine_of(held_out={"predicted": [name for name, n in predicted.items() for _ in range(n)]})
        scenarios.append(plant(store, shaded("dark"), tiles, "bright", "dark", CLASSES, machine=machine, **changes))
    model = subject.classifier()
    together = gate_together(scenarios, predict_scenarios(subject, model, scenarios), model, Bounds())
    assert together.predictions.recorded == pytest.approx(5 / 12)


def test_no_accuracy_of_all_scenarios_is_recorded_if_one_has_none(store: Store, subject: Subject) -> None:
    sheets = record_of(shaded("dark"), shaded("bright"), "bright", "dark").sheets.model_dump()
    for sheet in sheets.values():
        sheet["predicted"] = None
    accepted = {"status": "accepted", "label": "bright"}
    scenarios = [
        plant(store, shaded("dark"), HELD_OUT, "bright", "dark", CLASSES, **accepted),
        plant(
            store,
            shaded("dark"),
            shaded("bright"),
            "bright",
            "dark",
            CLASSES,
            method="reported",
            sheets=sheets,
            **accepted,
        ),
    ]
    model = subject.classifier()
    predictions = predict_scenarios(subject, model, scenarios)
    assert gate_together(scenarios, predictions, model, None).predictions.recorded is None
    with pytest.raises(DefuseError, match="no accuracy was recorded to compare with"):
        gate_together(scenarios, predictions, model, Bounds())


def test_all_scenarios_are_compared_with_a_baseline_of_all(store: Store, subject: Subject) -> None:
    accepted = {"status": "accepted", "label": "bright"}
    old, new = (
        plant(store, shaded("dark"), tiles, "bright", "dark", CLASSES, **accepted)
        for tiles in (HELD_OUT, shaded("dark", "dark"))
    )
    model, before = subject.classifier(), baseline_of(old, *["bright"] * 6, *["dark"] * 4).of("shades")
    predictions = predict_scenarios(subject, model, [old, new])
    with pytest.raises(DefuseError, match="max_drop needs a baseline, which lacks 2 of 12 images"):
        gate_together([old, new], predictions, model, Bounds(max_drop=0.0), before)
    first = gate_together([old, new], predictions, model, Bounds(max_drop=0.0), replace(before, first_run=True))
    assert [(check.total, check.outcome) for check in first.checks] == [(10, "PASS")]


def test_max_increase_is_an_error_on_images_that_are_no_failure_mode(scenario: Scenario, tested: Subject) -> None:
    model, bounds = tested.classifier(), Bounds(max_increase=0.1, min_accuracy=0.1)
    with pytest.raises(DefuseError, match="max_increase is only for scenarios of failure modes"):
        gate_test(tested, model, predict_test(tested, model), bounds)
    with pytest.raises(DefuseError, match="max_increase is only for scenarios of failure modes"):
        gate_together([scenario], predict_scenarios(tested, model, [scenario]), model, bounds)
    with pytest.raises(DefuseError, match=f"^{re.escape(str(scenario.yaml))}: max_increase needs the error rate"):
        gate(scenario, tested, max_increase=0.1)


def test_per_class_judges_every_class_of_the_subject_on_the_test_set(tested: Subject) -> None:
    model = tested.classifier()
    verdict = gate_test(tested, model, predict_test(tested, model), Bounds(min_accuracy=0.5, per_class=True))
    outcomes = {check.group: check.outcome for check in verdict.checks}
    assert outcomes == {"": "PASS", "bright": "PASS", "dark": "PASS", "medium": "INCONCLUSIVE"}
