from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_defuse import Subject
from pytest_defuse.discover.discovery import Candidate
from pytest_defuse.discover.regions import Region
from pytest_defuse.explain import ExplainSettings, Explanation, describe_region, explain, matching_images
from pytest_defuse.runtime.errors import DefuseError, InconclusiveError
from pytest_defuse.subject.images import content_hash
from tests.explain.spots import MARK, Spots, images, pairs, spots


def marked(pixels: Tensor) -> Tensor:
    return pixels[:, 0, MARK[0], MARK[1]].eq(255).all(dim=2).all(dim=1)


def test_the_feature_behind_the_failures_is_named(explanation: Explanation) -> None:
    """Bright images with the mark fail; predictions of dark fail with the mark or a bright upper left corner."""
    (missed,) = [mode for mode in explanation.modes if mode.group == "label bright"]
    assert missed.rule.startswith("feature 3 > ")
    assert missed.error_coverage == 1
    assert missed.error_rate > 0.95
    assert {mode.group for mode in explanation.modes} == {"label bright", "prediction dark"}


def test_a_test_set_without_enough_failures_is_inconclusive() -> None:
    """Without failures to test, no rule is found, which is no reason to pass."""
    few = spots(test=pairs(60, 0))
    found = explain(few, few.classifier())
    assert not found.modes
    assert found.failed.any()
    sentence = r"'spots' cannot be tested: the model is wrong on \d+ of 60 test images, and no group .* 10 failures"
    with pytest.raises(InconclusiveError, match=sentence):
        _ = found.tested


def test_tested_groups_without_a_rule_are_conclusive(explanation: Explanation) -> None:
    assert explanation.tested is explanation.modes
    strict = replace(explanation, modes=replace(explanation.modes, rules=()))
    assert not strict.tested


def test_the_features_of_another_network_are_used(subject: Subject) -> None:
    trunk = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4, 7))
    other = replace(subject, feature_network=trunk)
    found = explain(other, other.classifier(), ExplainSettings(layer="1"))
    assert found.features.shape == (800, 4)
    assert found.network.name == "output of '1'"
    assert any(mode.path[0].feature == 3 for mode in found.modes)


def test_the_users_groups_are_explained(subject: Subject) -> None:
    first_half = np.arange(800) < 400
    grouped = replace(subject, groups={"of May": first_half})
    found = explain(grouped, grouped.classifier())
    assert found.modes.groups["images of May"].rows.tolist() == list(range(400))


def test_a_group_that_does_not_fit_is_refused(subject: Subject) -> None:
    grouped = replace(subject, groups={"of May": [True]})
    with pytest.raises(DefuseError, match="give one bool for each of the 800 test images"):
        explain(grouped, grouped.classifier())


def test_names_of_this_network_are_used_and_those_of_others_are_not(subject: Subject, explanation: Explanation) -> None:
    names = {explanation.network.key: {3: "mark"}, "0" * 12: {3: "sky"}}
    named = explain(subject, subject.classifier(), names=names)
    assert named.modes[0].rule.startswith("feature 3 'mark' > ")


def test_training_images_that_match_a_rule_are_found(subject: Subject, explanation: Explanation) -> None:
    mode = explanation.modes[0]
    matching = matching_images(explanation.network, subject.train_images, mode.path)
    assert (matching == marked(subject.train_images.pixels)).double().mean() > 0.98


def test_a_regions_images_are_described_by_a_rule(explanation: Explanation) -> None:
    """Bright generated images that are all marked: the mark separates them from the real ones."""
    pixels, labels = images(800, 7)
    pixels = pixels[labels == 1]
    pixels[:, :, MARK[0], MARK[1]] = 255
    predictions = explanation.model.predict(pixels)
    region = Region(np.zeros(2), np.eye(2), 1.0, 1, 0, 1.0)
    candidate = Candidate(
        region=region,
        failed=60,
        drawn=64,
        p_value=0.001,
        coverage=0.1,
        confirmed=True,
        correction=pixels[:200],
        held_out=pixels[200:],
        correction_predictions=predictions[:200],
        held_out_predictions=predictions[200:],
    )
    (mode,) = describe_region(explanation, candidate)
    assert mode.group == "images of a region of bright"
    assert mode.rule.startswith("feature 3 > ")


def test_same_seed_same_modes(subject: Subject) -> None:
    first, again = (explain(subject, subject.classifier(), seed=3) for _ in range(2))
    assert list(first.modes) == list(again.modes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 4}, r"defuse_explain\(depth=4\): give a whole number from 1 to 3"),
        ({"depth": 1.5}, "give a whole number"),
        ({"tau": -0.1}, "give a number from 0 to 1"),
        ({"top": True}, ">= 1"),
        ({"selection": "guess"}, "give 'gain' or 'paper'"),
        ({"layer": 3}, "give a string"),
        ({"deep": 3}, r"has no setting 'deep' \(did you mean 'depth'\?\): it has selection"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(DefuseError, match=message):
        ExplainSettings.of(values)


def test_the_users_model_and_random_numbers_are_not_changed() -> None:
    model = Spots().train()
    data = pairs(100, 0)
    subject = Subject("spots", model, ["dark", "bright"], train=data, test=data, feature_network=model)

    def state() -> tuple[object, ...]:
        return (
            content_hash(*model.state_dict().values()),
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()],
            torch.get_rng_state().tolist(),
        )

    before = state()
    explain(subject, subject.classifier())
    assert state() == before
