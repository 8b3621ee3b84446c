"""Discovery end to end: a model that misreads dim horizontal bars, and judges that read bars of any brightness."""

import copy
import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_defuse import Subject
from pytest_defuse.discover import discovery as module
from pytest_defuse.discover.candidates import store_candidates
from pytest_defuse.discover.discovery import Candidate, Discovery, discover
from pytest_defuse.discover.judges import Judges, JudgeSettings, JudgeShape
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.discover.summary import discovery_result
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.sheets import pixel_hash
from pytest_defuse.scenarios.store import Store
from pytest_defuse.statistics.accuracy import wilson_interval
from tests.contents import contents
from tests.discover.stubs import Pixels
from tests.recorder import Recorder

CLASSES = ["horizontal", "vertical"]
SETTINGS = DiscoverySettings(
    budget=6000,
    min_failures=20,
    components=4,
    confirmations=64,
    tiles=9,
    latent=4,
    beta=0.1,
    generator_steps=400,
)


class Bars(nn.Module):
    """Predicts the direction of a bar; horizontal bars dimmer than ``dim`` are predicted as vertical."""

    def __init__(self, dim: float = 0.0, scale: float = 10.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.dim = nn.Parameter(torch.tensor(dim), requires_grad=False)
        self.norm = nn.BatchNorm2d(1, affine=False)  # in training mode it would change its buffers and predictions

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        row, column = x.mean(dim=3).amax(dim=(1, 2)), x.mean(dim=2).amax(dim=(1, 2))
        horizontal = (row - column) / (row + column + 0.01)
        error = horizontal.relu() * 2 * torch.sigmoid(40 * (self.dim - row))
        logit = self.scale * (horizontal - error)
        return torch.stack([logit, -logit], dim=1)


class Raising(Bars):
    """Raises an error in its twentieth batch, in the middle of a discovery."""

    def __init__(self, dim: float) -> None:
        super().__init__(dim)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= 20:
            raise RuntimeError("out of memory")
        return super().forward(x)


def bars(count: int, seed: int) -> list[tuple[Tensor, int]]:
    """12 x 12 images with a noisy bar at a random place, few of them dim."""
    numbers = torch.Generator().manual_seed(seed)
    dataset = []
    for number in range(count):
        row = int(torch.randint(2, 8, (1,), generator=numbers))
        image = 0.05 * torch.rand(1, 12, 12, generator=numbers)
        image[:, row : row + 3] += 0.4 + 0.5 * torch.rand(1, generator=numbers)
        dataset.append((image if number % 2 == 0 else image.mT, number % 2))
    return dataset


TRAIN, TEST = bars(300, 0), bars(50, 1)


def subject(model: nn.Module | None = None, **changes: Any) -> Subject:
    parts: dict[str, Any] = {"train": TRAIN, "test": TEST, "judges": [Bars(), Bars(scale=12.0)]}
    return Subject("bars", model or Bars(dim=0.5), CLASSES, **(parts | changes))


def states() -> tuple[object, ...]:
    """The states of the three global random number generators."""
    return random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()


def values(candidate: Candidate) -> tuple[object, ...]:
    return (
        candidate.region.mean.tolist(),
        candidate.failed,
        pixel_hash(candidate.correction.numpy()),
        pixel_hash(candidate.held_out.numpy()),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(cache: Path) -> Discovery:
    return discover(subject(), SETTINGS, cache=cache)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "bars")


def test_the_planted_failure_is_found(found: Discovery) -> None:
    assert found.candidates
    for candidate in found.candidates:
        assert (candidate.region.label, candidate.region.prediction) == (0, 1)
        held_out = candidate.held_out.float() / 255
        assert held_out.mean(dim=3).amax(dim=(1, 2)).mean() < 0.5  # dim bars
    coverages = [candidate.coverage for candidate in found.candidates]
    assert coverages == sorted(coverages, reverse=True)
    assert 0 < sum(candidate.region.weight for candidate in found.candidates) <= 1 + 1e-9


@pytest.mark.slow
def test_candidates_have_nearest_errors_if_there_are_known_errors(found: Discovery, store: Store) -> None:
    stored = store_candidates(store, subject(), found)
    correct = replace(found.latent_images, correct=torch.ones_like(found.latent_images.correct))
    for discovery, known in ((found, True), (replace(found, latent_images=correct), False)):
        result = discovery_result(discovery, stored, subject(), subject().classifier(), seconds=1.0, details=True)
        assert result.new
        assert [candidate.novelty is not None for candidate in result.new] == [known] * len(result.new)


def test_the_judges_confidently_see_the_label_in_every_image_of_a_sheet(found: Discovery) -> None:
    judges = Judges([subject().classifier(model=judge) for judge in subject().judges or ()], SETTINGS.confidence)
    for candidate in found.candidates:
        for tiles in (candidate.correction, candidate.held_out):
            assert tiles.dtype == torch.uint8
            assert tiles.shape == (SETTINGS.tiles, 1, 12, 12)
            labels, confident = judges.labels(tiles)
            assert confident.all()
            assert (labels == candidate.region.label).all()


def test_predictions_are_the_model_s_on_the_stored_pixels(found: Discovery) -> None:
    model = subject().classifier()
    for candidate in found.candidates:
        assert torch.equal(candidate.correction_predictions, model.predict(candidate.correction))
        assert torch.equal(candidate.held_out_predictions, model.predict(candidate.held_out))
        assert (candidate.held_out_predictions != candidate.region.label).double().mean() > SETTINGS.rho


def test_no_image_is_on_both_sheets(found: Discovery) -> None:
    for candidate in found.candidates:
        tiles = torch.cat([candidate.correction, candidate.held_out]).flatten(1)
        assert len(tiles.unique(dim=0)) == 2 * SETTINGS.tiles


def test_the_failure_rate_is_significantly_above_rho(found: Discovery) -> None:
    for candidate in found.candidates:
        assert candidate.drawn == SETTINGS.confirmations
        assert candidate.failure_rate == candidate.failed / candidate.drawn
        assert candidate.interval == wilson_interval(candidate.failed, candidate.drawn)
        assert candidate.interval[0] > SETTINGS.rho


def test_a_discovery_reports_its_cost_and_its_origin(found: Discovery) -> None:
    images, model = subject().train_images, subject().classifier()
    assert found.accuracy == (model.predict(images.pixels) == images.labels).double().mean()
    assert SETTINGS.min_reconstruction * found.accuracy <= found.reconstruction_accuracy <= 1
    assert found.judges.accuracies == (1, 1)
    assert SETTINGS.budget / 2 < found.passes <= SETTINGS.budget * 1.2
    assert found.failures >= SETTINGS.min_failures
    assert 1 <= found.latent_images.active_dimensions <= found.latent_images.latent_dim == SETTINGS.latent
    assert [r.confirmed for r in found.regions].count(True) == len(found.candidates)
    assert (found.model_fingerprint, found.data_hash) == (model.fingerprint, images.hash)
    assert (found.settings, found.seed) == (SETTINGS, 0)


def test_nothing_is_found_on_a_perfect_model(cache: Path) -> None:
    perfect = discover(subject(Bars()), SETTINGS, cache=cache)
    assert (perfect.candidates, perfect.failures, perfect.regions) == ((), 0, ())
    assert perfect.accuracy == 1


@pytest.mark.slow
def test_no_more_candidates_than_the_maximum(found: Discovery, cache: Path) -> None:
    one = DiscoverySettings.of(vars(SETTINGS) | {"candidates": 1})
    (only,) = discover(subject(), one, cache=cache).candidates
    assert values(only) == values(found.candidates[0])


def test_the_same_seed_finds_the_same(found: Discovery, cache: Path) -> None:
    progress = Recorder()
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = discover(subject(), SETTINGS, cache=cache, progress=progress)
    assert progress.titles == ["searching for failures", "confirming regions"]
    assert list(map(values, again.candidates)) == list(map(values, found.candidates))


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(
    ("kind", "outcome"), [(Bars, nullcontext()), (Raising, pytest.raises(DefuseError, match="out of memory"))]
)
def test_models_and_random_number_generators_do_not_change(
    cache: Path, kind: type[Bars], outcome: AbstractContextManager[object]
) -> None:
    bars = subject(kind(dim=0.5))
    models = [bars.model, *(bars.judges or ())]
    weights = copy.deepcopy([model.state_dict() for model in models])
    before = states()
    with outcome:
        discover(bars, SETTINGS, cache=cache)
    assert states() == before
    for model, expected in zip(models, weights, strict=True):
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
        assert all(part.training for part in model.modules())
        assert [p.requires_grad for p in model.parameters()] == [True, False]
        assert all(p.grad is None for p in model.parameters())


class Dropping(Bars):
    """Draws random numbers in eval mode too, as functional dropout does by default."""

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        return super().forward(x)


class Scaled(Bars):
    """The same weights under the same names, and logits times a factor that neither state nor ``repr`` shows."""

    def __init__(self, factor: float) -> None:
        super().__init__(dim=0.5)
        self.factor = factor

    def _get_name(self) -> str:
        return "Scaled"

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


BRIEF = SETTINGS.replace(budget=600)


def test_another_normalize_begins_another_search(tmp_path: Path) -> None:
    """Continued with a fixed ``normalize``, a search would keep what it found with the wrong one."""
    wrong, right = (subject(generator=Pixels(12), normalize=lambda x, f=factor: f * x) for factor in (0.7, 1.0))
    first = discover(wrong, BRIEF, cache=tmp_path)
    progress = Recorder()
    second = discover(right, BRIEF, cache=tmp_path, progress=progress)
    assert "starting a new search because model or normalize and panel of judges changed" in progress.sentences
    assert second.failures == discover(right, BRIEF, cache=tmp_path / "fresh").failures != first.failures


def test_another_forward_with_the_same_weights_begins_another_search(tmp_path: Path) -> None:
    first = discover(subject(Scaled(1.0), generator=Pixels(12)), BRIEF, cache=tmp_path)
    progress = Recorder()
    second = discover(subject(Scaled(-1.0), generator=Pixels(12)), BRIEF, cache=tmp_path, progress=progress)
    assert second.accuracy == pytest.approx(1 - first.accuracy)
    assert (
        f"the work in {first.journal.folder} is not continued: it depends on the model of subject 'bars', which has "
        "the same weights but now gives other outputs for the same images"
    ) in progress.sentences


def test_a_journal_is_removed_when_the_results_are_stored(tmp_path: Path) -> None:
    discovery = discover(subject(generator=Pixels(12)), BRIEF, cache=tmp_path)
    assert list((tmp_path / "searches").iterdir()) == [discovery.journal.folder]
    discovery.journal.remove()
    assert not list((tmp_path / "searches").iterdir())


def test_judges_that_draw_random_numbers_do_not_change_the_global_state(tmp_path: Path) -> None:
    before = states()
    discover(subject(judges=[Dropping()], generator=Pixels(12)), BRIEF, cache=tmp_path)
    assert states() == before


@pytest.mark.slow
def test_judges_are_trained_if_the_subject_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = JudgeSettings(shapes=(JudgeShape(4, 5, 1), JudgeShape(6, 3, 1)), min_steps=80, learning_rate=1e-2)
    monkeypatch.setattr(module, "JudgeSettings", lambda: small)
    result = discover(subject(judges=None, generator=Pixels(12)), BRIEF, cache=tmp_path)
    assert len(result.judges.accuracies) == 2
    assert min(result.judges.accuracies) > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": [(TRAIN[0][0], 0)] * 4}, "train contains images of one class only"),
        ({"train": [(torch.zeros(3, 12, 12), 0), (torch.ones(3, 12, 12), 1)]}, "train has images of 12 x 12 RGB"),
        ({"train": []}, r"Subject\(train=...\) is empty"),
        ({"model": nn.Flatten()}, r"the model of subject 'bars' returned shape \(8, 144\) for 2 classes"),
        ({"judges": [nn.Flatten()]}, r"judge 1 of subject 'bars' returned shape \(2, 144\) for 2 classes"),
    ],
)
def test_unusable_models_and_data_are_refused_before_any_training(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    progress = Recorder()
    with pytest.raises(DefuseError, match=message):
        discover(subject(**changes), SETTINGS, cache=tmp_path, progress=progress)
    assert progress.titles == []


def test_candidates_are_stored_pixel_for_pixel(found: Discovery, store: Store) -> None:
    stored = store_candidates(store, subject(), found)
    assert stored.known == ()
    assert {s.id for s in stored.new} == {s.id for s in store.scenarios("candidate")}
    for scenario, candidate in zip(stored.new, found.candidates, strict=True):
        record = scenario.record
        assert np.array_equal(scenario.pixels("correction"), candidate.correction)
        assert np.array_equal(scenario.pixels("held_out"), candidate.held_out)
        assert (record.proposed_label, record.label) == ("horizontal", None)
        assert record.sheets.held_out.predicted == {
            CLASSES[index]: int(count)
            for index, count in zip(*candidate.held_out_predictions.unique(return_counts=True), strict=True)
        }
        assert (record.failure_rate.failed, record.failure_rate.drawn) == (candidate.failed_tiles[1], SETTINGS.tiles)
        assert record.provenance.model == found.model_fingerprint


def test_stored_candidates_are_known_and_stay_as_they_are(found: Discovery, store: Store) -> None:
    first = store_candidates(store, subject(), found)
    before = contents(store.folder)
    again = store_candidates(store, subject(), found)
    assert again.new == ()
    assert [s.id for s in again.known] == [s.id for s in first.new]
    assert contents(store.folder) == before


def test_a_rejected_candidate_is_not_proposed_again(found: Discovery, store: Store) -> None:
    for scenario in store_candidates(store, subject(), found).new:
        store.update(scenario.id, status="rejected")
    before = contents(store.folder)
    assert store_candidates(store, subject(), found).new == ()
    assert store.scenarios("candidate") == []
    assert contents(store.folder) == before


def test_a_discovery_without_candidates_writes_nothing(found: Discovery, store: Store) -> None:
    nothing = Discovery(**(vars(found) | {"candidates": ()}))
    assert store_candidates(store, subject(), nothing).new == ()
    assert not store.folder.exists()


@pytest.mark.usefixtures("found")
def test_a_search_stays_around_its_starts(cache: Path) -> None:
    horizontal = torch.tensor([label == 0 for _, label in TRAIN])
    result = discover(subject(), SETTINGS, cache=cache, starts=horizontal)
    assert result.failures
    assert torch.equal(result.latent_images.indices, horizontal.nonzero().squeeze(1))
    with pytest.raises(DefuseError, match="no image to search around"):
        discover(subject(), SETTINGS, cache=cache, starts=torch.zeros(len(TRAIN), dtype=torch.bool))
