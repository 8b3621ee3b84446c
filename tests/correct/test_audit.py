from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pytest_defuse.correct import shifts
from pytest_defuse.correct.audit import audit
from pytest_defuse.correct.judgement import problems_of
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject
from tests.correct.sides import correction_of, sides, untouched


@pytest.mark.slow
def test_three_models_are_evaluated_on_everything_that_the_choice_did_not_use(
    subject: Subject, scenario: Scenario
) -> None:
    subject = replace(subject, shifts={"night": sides(30, seed=7)})
    correction = correction_of(subject, scenario)
    before, control, after = (
        subject.classifier(model=model) for model in (None, correction.control_model, correction.model)
    )
    with untouched(subject):
        audited = audit(subject, [scenario], {}, before, control, after, CorrectionSettings())
    assert [(score.name, score.kind) for score in audited.scores] == [
        ("test set", "test set"),
        *((name, "shifted copy") for name in ("blur", "noise", "affine", "contrast", "jpeg")),
        ("night", "shift set"),
        (scenario.id, "scenario"),
    ]
    held_out = torch.from_numpy(scenario.pixels("held_out"))
    last = audited.scores[-1]
    correct = [int((model.predict(held_out) == 0).sum()) for model in (before, control, after)]
    assert [last.before, last.control, last.after] == correct
    assert last.total == 25


def test_bounds_on_harm_are_evaluated_on_the_test_set(subject: Subject, scenario: Scenario) -> None:
    worse = subject.classifier()
    worse.module.head.bias.data += torch.tensor([100.0, 0.0])
    same = subject.classifier()
    problems = problems_of(audit(subject, [scenario], {}, same, same, worse, CorrectionSettings()).judgements)
    assert any("accuracy on class 'right' of the test set fell by 100.0%" in problem for problem in problems)
    assert any("shift set blur fell" in problem for problem in problems)


def test_a_shifted_copy_is_never_in_memory_as_a_whole(
    subject: Subject, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    predict = Classifier.predict

    def counted(self: Classifier, pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return predict(self, pixels)

    same = subject.classifier()
    monkeypatch.setattr(shifts, "PART_VALUES", 20 * 36)
    monkeypatch.setattr(Classifier, "predict", counted)
    audit(subject, [scenario], {}, same, same, same, CorrectionSettings())
    assert sizes == [*[50] * 3, *[20, 20, 20, 20, 20, 20, 10, 10, 10] * 5, *[25] * 3]


@pytest.mark.parametrize(
    ("bound", "words"),
    [(None, "less than defuse_correct(target=...) 90.0%"), (0.2, "less than its bound 20.0%"), (0.0, "")],
)
def test_a_scenario_must_reach_its_bound_or_the_target(
    subject: Subject, scenario: Scenario, bound: float | None, words: str
) -> None:
    same = subject.classifier()
    bounds = {} if bound is None else {scenario.id: bound}
    (judgement,) = audit(subject, [scenario], bounds, same, same, same, CorrectionSettings()).judgements
    assert (judgement.outcome, judgement.sentence.endswith(words)) == ("FAIL" if words else "PASS", True)
