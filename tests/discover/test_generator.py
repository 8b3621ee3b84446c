from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pytest_defuse.discover.generator import BATCH, BetaVAE, GeneratorSettings, TrainedVAE, trained_generator
from pytest_defuse.images import LabelledImages
from pytest_defuse.progress import Advance, Progress


class Counted(Progress):
    """Counts steps, in all tasks together."""

    steps = 0

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        def count(steps: int, note: str = "") -> None:
            self.steps += steps

        yield count


@pytest.fixture(scope="module")
def halves() -> LabelledImages:
    """A left and a right half, each of any brightness."""
    levels = torch.randint(256, (80, 1, 1, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return LabelledImages(levels.repeat_interleave(4, dim=3).repeat(1, 1, 8, 1), torch.zeros(80, dtype=torch.int64))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def made(
    images: LabelledImages, cache: Path, *, steps: int = 150, seed: int = 0, progress: Progress | None = None
) -> TrainedVAE:
    settings = GeneratorSettings(latent=4, channels=8, steps=steps, warmup=50, batch=32, rate=3e-3)
    return trained_generator(images, settings, seed=seed, device="cpu", cache=cache, progress=progress or Progress())


def error(generator: TrainedVAE, pixels: Tensor) -> float:
    """Mean squared error of the reconstructions."""
    means, _ = generator.encode(pixels)
    return (generator.decode(means).float() - pixels.float()).square().mean().item()


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 32, 32), (3, 30, 45), (1, 45, 30), (3, 64, 64), (1, 8, 8), (1, 7, 40)]
)
def test_images_of_any_size_come_back_in_that_size(shape: tuple[int, int, int]) -> None:
    with torch.random.fork_rng():
        generator = TrainedVAE(BetaVAE(shape, GeneratorSettings(latent=5, channels=4)), "cpu")
        pixels = torch.randint(256, (3, *shape), dtype=torch.uint8)
    means, deviations = generator.encode(pixels)
    assert means.shape == deviations.shape == (3, 5)
    assert means.dtype == deviations.dtype == torch.float32
    assert (deviations > 0).all()
    decoded = generator.decode(means)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == torch.uint8


def test_many_images_are_treated_like_few(halves: LabelledImages, cache: Path) -> None:
    generator = made(halves, cache)
    pixels = halves.pixels.repeat(4, 1, 1, 1)
    assert len(pixels) > BATCH
    means, deviations = generator.encode(pixels)
    torch.testing.assert_close(means[-80:], generator.encode(halves.pixels)[0])
    torch.testing.assert_close(deviations[-80:], generator.encode(halves.pixels)[1])
    torch.testing.assert_close(generator.decode(means)[-80:], generator.decode(means[-80:]), atol=1, rtol=0)


def test_training_teaches_it_the_images(halves: LabelledImages, cache: Path) -> None:
    mean_image = halves.pixels.float().mean(dim=0)
    variance = (halves.pixels - mean_image).square().mean().item()
    assert error(made(halves, cache), halves.pixels) < variance / 4
    assert error(made(halves, cache, steps=1), halves.pixels) > variance / 2


def test_it_is_trained_once(halves: LabelledImages, tmp_path: Path) -> None:
    progress = Counted()
    first = made(halves, tmp_path, steps=3, progress=progress)
    assert progress.steps == 3
    second = made(halves, tmp_path, steps=3, progress=progress)
    assert progress.steps == 3
    assert second.hash == first.hash
    assert torch.equal(second.encode(halves.pixels)[0], first.encode(halves.pixels)[0])


def test_the_seed_decides_what_it_becomes(halves: LabelledImages, tmp_path: Path) -> None:
    hashes = [
        made(halves, tmp_path / folder, steps=3, seed=seed).hash for folder, seed in (("a", 0), ("b", 0), ("b", 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_other_images_and_settings_are_trained_anew(halves: LabelledImages, tmp_path: Path) -> None:
    progress = Counted()
    for images, steps in ((halves, 2), (halves, 3), (halves[:40], 3)):
        made(images, tmp_path, steps=steps, progress=progress)
    assert progress.steps == 8


def test_global_random_numbers_neither_change_nor_matter(halves: LabelledImages, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first = made(halves, tmp_path / "a", steps=2)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert made(halves, tmp_path / "b", steps=2).hash == first.hash
