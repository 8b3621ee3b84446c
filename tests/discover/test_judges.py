from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pytest_defuse.discover.judges import Judges, JudgeSettings, JudgeShape, augment, judge_network, trained_judges
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages
from tests.discover.stubs import Table
from tests.recorder import Recorder

SMALL = (JudgeShape(4, 5, 1), JudgeShape(6, 3, 2))


def numbered(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1)


def panel(*probabilities: list[list[float]], confidence: float = 0.9) -> Judges:
    """Judges with these probabilities, N x classes each."""
    tables = [torch.tensor(rows) for rows in probabilities]
    return Judges([Classifier(Table(table), table.shape[1], image_shape=(1, 1, 1)) for table in tables], confidence)


def test_a_panel_is_confident_if_all_judges_agree_and_are_confident() -> None:
    zero, one, low = [0.96, 0.02, 0.02], [0.02, 0.96, 0.02], [0.8, 0.1, 0.1]
    judges = panel([zero, zero, zero, low, one], [zero, one, low, zero, one])
    labels, confident = judges.labels(numbered(5))
    assert confident.tolist() == [True, False, False, False, True]
    assert labels[confident].tolist() == [0, 1]


@given(st.integers(0, 2**32), st.integers(1, 4), st.floats(0.4, 0.99))
def test_judges_contradict_if_they_are_confident_and_differ(seed: int, count: int, confidence: float) -> None:
    numbers = torch.Generator().manual_seed(seed)
    truth = 4 * torch.randn(100, 3, generator=numbers)
    tables = [(truth + 2 * torch.randn(100, 3, generator=numbers)).exp() for _ in range(count)]
    judges = Judges([Classifier(Table(table), 3) for table in tables], confidence)
    predictions = torch.randint(3, (100,), generator=numbers)

    labels, confident = judges.labels(numbered(100))
    seen, contradicted, evaluations = judges.contradict(numbered(100), predictions)
    assert torch.equal(contradicted, confident & (labels != predictions))
    assert torch.equal(seen[contradicted], labels[contradicted])
    assert (evaluations[contradicted] == count).all()
    assert evaluations.min() >= 1
    assert evaluations.max() <= count


@pytest.mark.parametrize("count", [0, 3])
def test_judges_that_agree_with_the_model_contradict_nothing(count: int) -> None:
    judges = panel([[0.96, 0.04]] * 3, [[0.96, 0.04]] * 3)
    labels, contradicted, evaluations = judges.contradict(numbered(count), torch.zeros(count, dtype=torch.int64))
    assert contradicted.tolist() == [False] * count
    assert evaluations.tolist() == [1] * count, "the second judge cannot change the verdict"
    assert labels.shape == (count,)


def test_predictions_are_not_modified() -> None:
    predictions = torch.ones(3, dtype=torch.int64)
    panel([[0.96, 0.04]] * 3).contradict(numbered(3), predictions)
    assert predictions.tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(20, 1, 8, 8), (20, 3, 9, 12)])
def test_augmented_images_keep_shape_and_range(shape: tuple[int, ...]) -> None:
    with torch.random.fork_rng():
        images = torch.rand(shape)
        augmented = augment(images)
    assert augmented.shape == shape
    assert augmented.min() >= 0
    assert augmented.max() <= 1 + 1e-6
    assert not torch.allclose(augmented, images, atol=0.1)


def test_augmentation_shifts_and_scales_an_object_a_little() -> None:
    images = torch.zeros(200, 1, 24, 24)
    images[:, :, 10:14, 10:14] = 1
    with torch.random.fork_rng():
        augmented = augment(images)
    square = augmented - augmented.amin(dim=(2, 3), keepdim=True)  # contrast changes the black background too
    mass = square.sum(dim=(1, 2, 3)) / square.amax(dim=(1, 2, 3))
    centre = (square * torch.arange(24.0)).sum(dim=(1, 2, 3)) / square.sum(dim=(1, 2, 3)) - 11.5
    assert 0.5 < centre.abs().max() < 3
    assert 9 < mass.min() < 14 < 18 < mass.max() < 26


def test_augmentation_never_flips_an_image() -> None:
    images = torch.linspace(0, 1, 24).expand(500, 3, 24, 24)  # brighter to the right
    with torch.random.fork_rng():
        augmented = augment(images)
    assert (augmented[..., 16:].mean(dim=(1, 2, 3)) > augmented[..., :8].mean(dim=(1, 2, 3))).all()


def test_augmentation_changes_contrast_a_little() -> None:
    images = torch.rand(200, 3, 1, 1).expand(-1, -1, 8, 8)
    with torch.random.fork_rng():
        augmented = augment(images)
    ratio = augmented.std(dim=1).mean(dim=(1, 2)) / images.std(dim=1).mean(dim=(1, 2))
    assert 0.65 < ratio.min() < 0.8
    assert 1.2 < ratio.max() < 1.35


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 30, 45), (1, 7, 40), (3, 64, 64), (3, 128, 128)])
@pytest.mark.parametrize("judge", JudgeSettings().shapes)
def test_judges_read_images_of_any_size(shape: tuple[int, ...], judge: JudgeShape) -> None:
    with torch.random.fork_rng():
        assert judge_network(shape, 7, judge)(torch.rand(2, *shape)).shape == (2, 7)


def test_the_default_judges_differ_in_shape() -> None:
    assert len(set(JudgeSettings().shapes)) == 3


@pytest.fixture(scope="module")
def halves() -> LabelledImages:
    """Images that are brighter above or below."""
    numbers = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (100,), generator=numbers)
    pixels = torch.randint(60, (100, 1, 8, 8), generator=numbers)
    pixels[labels == 0, :, :4] += 150
    pixels[labels == 1, :, 4:] += 150
    return LabelledImages(pixels.to(torch.uint8), labels)


def test_trained_judges_are_accurate_and_trained_once(halves: LabelledImages, tmp_path: Path) -> None:
    def judges(seed: int, progress: Progress) -> list[Classifier]:
        settings = JudgeSettings(shapes=SMALL, steps_per_class=20, min_steps=20, batch_size=32, learning_rate=1e-2)
        return trained_judges(halves, 2, settings, seed=seed, device="cpu", cache=tmp_path, progress=progress)

    progress = Recorder()
    first = judges(0, progress)
    assert progress.titles == ["training judge 1", "training judge 2"]
    assert all((judge.predict(halves.pixels) == halves.labels).float().mean() > 0.95 for judge in first)

    before = torch.get_rng_state()
    again = judges(0, progress)
    assert len(progress.titles) == 2
    assert [judge.hash for judge in again] == [judge.hash for judge in first]
    assert torch.equal(torch.get_rng_state(), before)

    other = judges(1, progress)
    assert len(progress.titles) == 4
    # Judges of one panel, and of different seeds, have different weights.
    assert len({judge.hash for judge in [*first, *other]}) == 4


def test_judges_of_more_classes_are_others(halves: LabelledImages, tmp_path: Path) -> None:
    """The new class may have no image yet, so the images are the same."""
    settings = JudgeSettings(shapes=SMALL, steps_per_class=1, min_steps=1, batch_size=8)
    for classes in (2, 3):
        panel = trained_judges(halves, classes, settings, seed=0, device="cpu", cache=tmp_path, progress=Progress())
        assert all(judge.logits(halves.pixels[:1]).shape == (1, classes) for judge in panel)


def test_the_fingerprint_of_a_panel_depends_on_its_judges_and_its_confidence() -> None:
    zero, one = [[0.96, 0.04]], [[0.04, 0.96]]
    panels = [panel(zero), panel(one), panel(zero, one), panel(one, zero), panel(zero, confidence=0.8)]
    assert len({judges.fingerprint for judges in panels}) == 5
    assert panel(zero).fingerprint == panel(zero).fingerprint
    assert panel(zero, confidence=0.93).fingerprint == panel(zero, confidence=0.93 + 1e-7).fingerprint
