"""Failure modes become candidates of real images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_defuse.explain import ExplainSettings, Explanation, explain
from pytest_defuse.explain.slices import slice_of, store_failure_modes
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.images import found_in
from tests.explain.spots import MARK, pairs, spots


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    subject = spots()
    return explain(subject, subject.classifier())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "spots")


def marked(pixels: np.ndarray) -> np.ndarray:
    return (pixels[:, 0, MARK[0], MARK[1]] == 255).all(axis=(1, 2))


def test_a_candidate_carries_its_rule_and_its_groups_error_rate(explanation: Explanation, store: Store) -> None:
    stored = store_failure_modes(store, explanation)
    assert len(stored.new) + len(stored.left_out) == len(explanation.modes)
    (mode,) = [mode for mode in explanation.modes if mode.group == "label bright"]
    (scenario,) = [s for s in stored.new if s.record.description.startswith("label bright")]
    found, machine = scenario.record, scenario.machine
    assert found.status == "candidate"
    assert found.proposed_label == "bright"
    assert machine.region is None
    assert found.method == "barlow"
    assert mode.rule in found.description
    assert explanation.network.key in found.description
    assert found.base_error_rate == pytest.approx(mode.base_error_rate)
    assert (found.failure_rate.failed, found.failure_rate.drawn) == (mode.cluster.failures, mode.cluster.images)


def test_sheets_have_all_matching_images_held_out_from_test_correction_from_train(
    explanation: Explanation,
) -> None:
    (mode,) = [mode for mode in explanation.modes if mode.group == "label bright"]
    found = slice_of(explanation, mode)
    test, train = explanation.subject.test_images, explanation.subject.train_images
    assert (test.labels[torch.from_numpy(found.rows)] == 1).all()
    assert explanation.modes.measures[found.rows].all()
    assert found.rows.tolist() == explanation.modes.rows(mode.group, mode.path, explanation.features).tolist()
    expected = train.pixels[torch.from_numpy(marked(train.pixels.numpy())) & (train.labels == 1)]
    expected = expected[~found_in(expected, explanation.subject.split[1].pixels)]
    assert torch.equal(found.correction, expected)


@pytest.mark.parametrize("own", [False, True], ids=["a tenth of train", "the subject's own"])
def test_no_validation_image_is_on_a_correction_sheet(store: Store, own: bool) -> None:
    """A correction chooses among models by their accuracy on validation images, so it must not train on them."""
    train = pairs(600, 1)
    subject = spots(train=train, validation=train[:200]) if own else spots(train=train)
    validation = subject.split[1].pixels
    for scenario in store_failure_modes(store, explain(subject, subject.classifier(), seed=5)).new:
        tiles = torch.from_numpy(scenario.pixels("correction"))
        assert not found_in(tiles, validation).any()
        assert found_in(tiles, subject.train_images.pixels).all()


def test_a_slice_that_fails_less_than_its_mode_claims_is_left_out_and_named(
    explanation: Explanation, store: Store
) -> None:
    """All images that are classified as dark where the upper left corner is bright are wrong, but most bright images
    are not classified as dark."""
    stored = store_failure_modes(store, explanation)
    assert [scenario.record.proposed_label for scenario in stored.new] == ["bright"]
    (sentence,) = stored.left_out
    assert sentence.startswith("prediction dark, where feature 0 > 0.47")
    assert sentence.endswith("images of bright fail, and more than 28.4% must")
    for scenario in stored.new:
        record = scenario.record
        predicted = explanation.model.predict(torch.from_numpy(scenario.pixels("held_out")))
        assert record.failure_rate.failed == int((predicted == 0).sum())
        assert record.failure_rate.drawn == record.sheets.held_out.images
        assert record.failure_rate.failed > (record.base_error_rate + 0.1) * record.failure_rate.drawn


def test_modes_beyond_the_stores_budget_are_named_and_a_full_store_is_refused(
    explanation: Explanation, store: Store
) -> None:
    twice = replace(explanation, modes=replace(explanation.modes, rules=explanation.modes.rules[:1]))
    store_failure_modes(store, replace(twice, settings=ExplainSettings(tiles=9)))
    path = store.folder / "store.yaml"
    path.write_text(path.read_text().replace("scenarios: 100", "scenarios: 2"))
    assert len(store_failure_modes(store, twice).new) == 1
    with pytest.raises(DefuseError, match=r"the store has 2 scenarios, and its budgets\.scenarios is 2"):
        store_failure_modes(store, replace(twice, settings=ExplainSettings(tiles=8)))


def test_a_slice_does_not_depend_on_predictions(explanation: Explanation) -> None:
    """All images with the label that fails most, also those that the model classifies correctly."""
    (mode,) = [mode for mode in explanation.modes if mode.group == "prediction dark"]
    found = slice_of(explanation, mode)
    assert found.label == 1
    rows = np.flatnonzero(explanation.modes.measures & (explanation.subject.test_images.labels.numpy() == 1))
    matching = mode.path[0].matches(explanation.features[rows])
    assert found.rows.tolist() == rows[matching].tolist()


def test_sheets_have_no_more_tiles_than_the_setting(explanation: Explanation, store: Store) -> None:
    limited = replace(explanation, settings=ExplainSettings(tiles=9))
    for scenario in store_failure_modes(store, limited).new:
        assert len(scenario.pixels("held_out")) == 9
        assert len(scenario.pixels("correction")) == 9


def test_an_existing_candidate_is_known_and_not_changed(explanation: Explanation, store: Store) -> None:
    first = store_failure_modes(store, explanation)
    rejected = store.update(first.new[0].id, status="rejected")
    again = store_failure_modes(store, explanation)
    assert not again.new
    assert {scenario.id for scenario in again.known} == {scenario.id for scenario in first.new}
    assert store.get(rejected.id).record.status == "rejected"


def test_a_rule_that_no_training_image_matches_is_left_out(store: Store) -> None:
    unmarked = [(image, label) for image, label in pairs(300, 1) if not marked(image.numpy()[None])[0]]
    subject = spots(train=unmarked)
    explanation = explain(subject, subject.classifier())
    rules = [scenario.record.description for scenario in store_failure_modes(store, explanation).new]
    assert "label bright" in {mode.group for mode in explanation.modes}
    assert not [rule for rule in rules if rule.startswith("label bright")]


def test_names_of_features_are_kept_in_the_store(explanation: Explanation, store: Store) -> None:
    store_failure_modes(store, explanation)
    path = store.folder / "store.yaml"
    names = f'feature_names: {{"{explanation.network.key}": {{"3": mark}}}}'
    path.write_text(path.read_text().replace("feature_names: {}", names))
    subject = explanation.subject
    named = explain(subject, subject.classifier(), names=store.feature_names())
    assert "'mark'" in named.modes[0].rule
    store_failure_modes(store, named)
    assert store.feature_names() == {explanation.network.key: {3: "mark"}}
