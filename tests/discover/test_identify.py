from dataclasses import replace
from typing import Any

import pytest
import torch
from halves import Brighter, Halves
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_defuse.classifier import Classifier
from pytest_defuse.discover import identify as module
from pytest_defuse.discover.identify import Failures, LatentImages, identify, locate
from pytest_defuse.discover.judges import Judges
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.errors import DefuseError
from pytest_defuse.images import LabelledImages
from pytest_defuse.progress import Progress

SETTINGS = DiscoverySettings(budget=120, draws=10, noise=0.5, cap=1000, neighbours=5, neighbour_noise=0.2)


class Mirrored(Halves):
    """It shows the left half on the right."""

    def decode(self, codes: Tensor) -> Tensor:
        return super().decode(codes.flip(1))


class Always(nn.Module):
    """Says one class of everything."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return 20 * nn.functional.one_hot(torch.full((len(x),), self.label), 2).float()


JUDGES = Judges([Classifier(Brighter(), 2), Classifier(Brighter(0.001), 2)])
MODEL = Classifier(Brighter(0.0507), 2)  # wrong where the left half is brighter by a little
CONTRARY = Judges([Classifier(Brighter(0.0507, -1e6), 2)])  # surely see what the model does not


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    """Thirty images on which the model is right, near and far from where it fails."""
    numbers = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 2
    left = torch.rand(30, generator=numbers) * 6 - 3
    gap = torch.rand(30, generator=numbers) * 1.5 + 0.6
    codes = torch.stack([left, torch.where(labels == 1, left - gap, left + gap)], dim=1)
    return LabelledImages(Halves().decode(codes), labels)


@pytest.fixture(scope="module")
def located(images: LabelledImages) -> LatentImages:
    return locate(MODEL, Halves(), images, 0.85)


def search(
    located: LatentImages, *, classifier: Classifier = MODEL, judges: Judges = JUDGES, seed: int = 0, **changes: Any
) -> Failures:
    settings = replace(SETTINGS, **changes)
    return identify(classifier, judges, Halves(), located, settings, seed=seed, progress=Progress())


def draws(failures: Failures) -> set[tuple[float, ...]]:
    """Each failure as a tuple of image, draw and code."""
    numbers = (failures.images.tolist(), failures.draws.tolist(), failures.codes.tolist())
    return {(image, draw, *code) for image, draw, code in zip(*numbers, strict=True)}


def test_images_are_located_where_the_generator_puts_them(images: LabelledImages, located: LatentImages) -> None:
    torch.testing.assert_close(Halves().decode(located.means), images.pixels)
    torch.testing.assert_close(located.spread, located.means.std(dim=0))
    logits = MODEL.logits(images.pixels)
    torch.testing.assert_close(located.margin, (logits[:, 1] - logits[:, 0]) * (2 * images.labels - 1))
    assert (located.accuracy, located.reconstruction_accuracy) == (1, 1)


def test_a_generator_whose_images_the_model_cannot_read_is_refused(images: LabelledImages) -> None:
    with pytest.raises(DefuseError, match=r"right on 100.0% of the training images but on 0.0% of .* 85.0% is needed"):
        locate(MODEL, Mirrored(), images, 0.85)


def test_both_figures_are_of_the_same_images(images: LabelledImages) -> None:
    labels = images.labels.clone()
    labels[:3] = 1 - labels[:3]
    located = locate(MODEL, Halves(), LabelledImages(images.pixels, labels), 0.85)
    assert (located.accuracy, located.reconstruction_accuracy) == (0.9, 0.9)
    with pytest.raises(DefuseError, match=r"right on 90.0% .* but on 10.0% .* 45.0% is needed"):
        locate(MODEL, Mirrored(), LabelledImages(images.pixels, labels), 0.5)


def test_a_model_that_is_never_right_is_refused(images: LabelledImages) -> None:
    with pytest.raises(DefuseError, match="wrong on every reconstructed training image: check its checkpoint"):
        locate(MODEL, Halves(), LabelledImages(images.pixels, 1 - images.labels), 0.85)


def test_failures_are_sure_and_differ_on_the_pixels_that_a_png_holds(located: LatentImages) -> None:
    failures = search(located)
    pixels = Halves().decode(failures.codes)
    seen, sure = JUDGES.verdicts(pixels)
    assert len(failures) > 20
    assert pixels.dtype == torch.uint8
    assert sure.all()
    assert torch.equal(failures.labels, seen)
    assert torch.equal(failures.predictions, MODEL.predict(pixels))
    assert (failures.labels != failures.predictions).all()
    assert len(draws(search(located, seed=1)) & draws(failures)) == 0


def test_every_sure_difference_is_a_failure(located: LatentImages) -> None:
    failures = search(located, judges=CONTRARY)
    assert len(failures) == 12 * SETTINGS.draws * (1 + SETTINGS.neighbours)  # budget / draws = 12 images
    assert len(failures.images.unique()) == 12


def test_every_draw_has_its_own_noise_of_the_size_asked_for(located: LatentImages) -> None:
    failures = search(located, judges=CONTRARY)
    first, second = failures[: 12 * SETTINGS.draws], failures[12 * SETTINGS.draws :]
    origins = first.codes.repeat_interleave(SETTINGS.neighbours, dim=0)
    near_images = (first.codes - located.means[first.images]) / located.spread / SETTINGS.noise
    near_failures = (second.codes - origins) / located.spread / SETTINGS.neighbour_noise
    noise = torch.cat([near_images, near_failures])
    torch.testing.assert_close(noise.std(dim=0), torch.ones(2), atol=0.1, rtol=0)
    torch.testing.assert_close(noise.mean(dim=0), torch.zeros(2), atol=0.1, rtol=0)
    assert len((noise * 1000).round().unique(dim=0)) == len(noise)


@pytest.mark.parametrize(
    "judges",
    [
        Judges([Classifier(Brighter(0.0507), 2)]),
        Judges([Classifier(Brighter(sureness=1e-3), 2)]),
        Judges([Classifier(Always(0), 2), Classifier(Always(1), 2)]),
    ],
    ids=["agree with the model", "are unsure", "disagree"],
)
def test_there_are_no_failures_where_the_judges(located: LatentImages, judges: Judges) -> None:
    assert len(search(located, judges=judges)) == 0


@pytest.mark.parametrize("chunk", [1, 7, 30, 100_000])
def test_the_size_of_a_chunk_changes_nothing(
    located: LatentImages, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    expected = vars(search(located))
    monkeypatch.setattr(module, "CHUNK", chunk)
    failures = vars(search(located))
    assert all(torch.equal(failures[name], expected[name]) for name in expected)


def test_a_draw_is_the_same_whatever_else_is_drawn(located: LatentImages) -> None:
    expected = draws(search(located))
    fewer_images, fewer_draws, fewer_neighbours = (
        draws(search(located, budget=50)),
        draws(search(located, budget=72, draws=6)),
        draws(search(located, neighbours=2)),
    )
    assert 0 < len(fewer_images) < len(expected)
    assert fewer_images < expected
    assert fewer_draws < expected
    assert fewer_neighbours < expected


def test_images_of_the_smallest_margin_are_searched(located: LatentImages) -> None:
    failures = search(located, judges=CONTRARY, budget=50)
    assert set(failures.images.tolist()) == set(located.margin.argsort()[:5].tolist())


def test_an_image_whose_reconstruction_is_misread_gets_no_draws(images: LabelledImages, located: LatentImages) -> None:
    misread = located.margin.argsort()[:3]
    labels = images.labels.clone()
    labels[misread] = 1 - labels[misread]
    elsewhere = locate(MODEL, Halves(), LabelledImages(images.pixels, labels), 0.85)
    failures = search(elsewhere, judges=CONTRARY, budget=10_000)
    assert set(failures.images.tolist()) == set(range(30)) - set(misread.tolist())


def test_each_round_keeps_at_most_cap_failures_of_an_image(located: LatentImages) -> None:
    failures = search(located, judges=CONTRARY, cap=4)
    assert failures.images.unique(return_counts=True)[1].tolist() == [8] * 12


@settings(deadline=None)
@given(st.lists(st.integers(0, 5)), st.integers(1, 4))
def test_capped_keeps_the_first_failures_of_each_image(numbers: list[int], most: int) -> None:
    count = torch.arange(len(numbers))
    failures = Failures(count[:, None].float(), count, count, torch.tensor(numbers, dtype=torch.int64), count)
    expected = [at for at, image in enumerate(numbers) if numbers[:at].count(image) < most]
    assert failures.capped(most).draws.tolist() == expected
    assert failures.capped(most).codes.flatten().tolist() == expected


def test_a_search_stays_around_the_images_that_it_may_start_from(located: LatentImages) -> None:
    def search_from(starts: Tensor) -> Failures:
        progress = Progress()
        return identify(MODEL, JUDGES, Halves(), located, SETTINGS, seed=0, progress=progress, starts=starts)

    everywhere = search(located)
    chosen = torch.arange(30) % 3 == 0
    there = search_from(chosen)
    assert set(there.images.tolist()) <= set(range(0, 30, 3))
    assert {draw for draw in draws(everywhere) if draw[0] % 3 == 0} <= draws(there)
    with pytest.raises(DefuseError, match="every image that the search may start from"):
        search_from(torch.zeros(30, dtype=torch.bool))
