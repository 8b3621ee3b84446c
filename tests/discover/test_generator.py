from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.discover import generator as module
from pytest_defuse.discover.generator import (
    BetaVAE,
    GeneratorSettings,
    TrainedVAE,
    cached_generator,
    check_generator,
    trained_generator,
)
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages, quantise
from tests.recorder import Recorder


@pytest.fixture(scope="module")
def halves() -> LabelledImages:
    """Images with a left and a right half of random brightness."""
    levels = torch.randint(256, (80, 1, 1, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return LabelledImages(levels.repeat_interleave(4, dim=3).repeat(1, 1, 8, 1), torch.zeros(80, dtype=torch.int64))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def made(
    images: LabelledImages,
    cache: Path,
    *,
    steps: int = 150,
    seed: int = 0,
    judge: Classifier | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> TrainedVAE:
    return trained_generator(
        images,
        GeneratorSettings(
            latent_dim=4, channels=8, steps=steps, warmup=50, batch_size=32, learning_rate=3e-3, **settings
        ),
        judge=judge,
        seed=seed,
        device="cpu",
        cache=cache,
        progress=progress or Progress(),
    )


def error(generator: TrainedVAE, pixels: Tensor) -> float:
    """Mean squared error of the reconstructions."""
    means, _ = generator.encode(pixels)
    return (generator.decode(means).float() - pixels.float()).square().mean().item()


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 32, 32), (3, 30, 45), (1, 45, 30), (3, 64, 64), (3, 128, 128), (1, 8, 8), (1, 7, 40)]
)
@pytest.mark.parametrize("settings", [GeneratorSettings(), GeneratorSettings.paper(100)], ids=["default", "paper"])
def test_reconstructions_have_the_size_of_the_images(shape: tuple[int, int, int], settings: GeneratorSettings) -> None:
    with torch.random.fork_rng():
        generator = TrainedVAE(BetaVAE(shape, settings.replace(latent_dim=5, channels=4, deep_channels=4)), "cpu")
        pixels = torch.randint(256, (3, *shape), dtype=torch.uint8)
    means, deviations = generator.encode(pixels)
    assert means.shape == deviations.shape == (3, 5)
    assert means.dtype == deviations.dtype == torch.float32
    assert (deviations > 0).all()
    decoded = generator.decode(means)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == torch.uint8


def test_a_result_does_not_depend_on_the_other_images(halves: LabelledImages, cache: Path) -> None:
    generator = made(halves, cache)
    pixels = halves.pixels.repeat(4, 1, 1, 1)
    assert len(pixels) > generator.batches.size
    means, deviations = generator.encode(pixels)
    torch.testing.assert_close(means[-80:], generator.encode(halves.pixels)[0])
    torch.testing.assert_close(deviations[-80:], generator.encode(halves.pixels)[1])
    torch.testing.assert_close(generator.decode(means)[-80:], generator.decode(means[-80:]), atol=1, rtol=0)


def test_gradients_flow_through_render(halves: LabelledImages, cache: Path) -> None:
    generator = made(halves, cache)
    codes = torch.zeros(3, 4, requires_grad=True)
    images = generator.render(codes)
    (slope,) = torch.autograd.grad(images.sum(), codes)
    assert slope.abs().sum() > 0
    torch.testing.assert_close(quantise(images.detach()), generator.decode(codes.detach()), atol=1, rtol=0)


def test_training_reduces_the_reconstruction_error(halves: LabelledImages, cache: Path) -> None:
    mean_image = halves.pixels.float().mean(dim=0)
    variance = (halves.pixels - mean_image).square().mean().item()
    assert error(made(halves, cache), halves.pixels) < variance / 4
    assert error(made(halves, cache, steps=1), halves.pixels) > variance / 2


def test_it_is_trained_once(halves: LabelledImages, tmp_path: Path) -> None:
    progress = Recorder()
    first = made(halves, tmp_path, steps=3, progress=progress)
    assert progress.done == 3
    second = made(halves, tmp_path, steps=3, progress=progress)
    assert progress.done == 3
    assert second.hash == first.hash
    assert torch.equal(second.encode(halves.pixels)[0], first.encode(halves.pixels)[0])


@pytest.mark.parametrize("judged", [False, True], ids=["pixels only", "with a judge"])
@pytest.mark.parametrize("settings", [GeneratorSettings(latent_dim=4), GeneratorSettings.paper(80, latent_dim=4)])
def test_a_trained_generator_is_found_by_its_hash(
    settings: GeneratorSettings, judged: bool, halves: LabelledImages, tmp_path: Path
) -> None:
    judge = Classifier(Sides(), 2, image_shape=(1, 8, 8)) if judged else None
    options = {"seed": 0, "device": "cpu", "cache": tmp_path, "progress": Progress()}
    trained = trained_generator(halves, settings.replace(steps=1, batch_size=8), judge=judge, **options)
    found = cached_generator(tmp_path, trained.hash, (1, 8, 8), 4)
    assert torch.equal(found.encode(halves.pixels)[0], trained.encode(halves.pixels)[0])


def test_a_generator_that_is_not_in_the_cache(halves: LabelledImages, tmp_path: Path) -> None:
    (tmp_path / "generator-0.safetensors").write_bytes(b"damaged")
    made(halves, tmp_path, steps=1)
    with pytest.raises(DefuseError, match=r"The generator 000000000000 is not in .*: run pytest --defuse-discover"):
        cached_generator(tmp_path, "0" * 64, (1, 8, 8), 4)


def test_the_weights_depend_on_the_seed(halves: LabelledImages, tmp_path: Path) -> None:
    hashes = [
        made(halves, tmp_path / folder, steps=3, seed=seed).hash for folder, seed in (("a", 0), ("b", 0), ("b", 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_other_images_and_settings_are_trained_again(halves: LabelledImages, tmp_path: Path) -> None:
    progress = Recorder()
    for images, steps in ((halves, 2), (halves, 3), (halves[:40], 3)):
        made(images, tmp_path, steps=steps, progress=progress)
    assert progress.done == 8


def test_the_global_random_state_neither_changes_nor_matters(halves: LabelledImages, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first = made(halves, tmp_path / "a", steps=2)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert made(halves, tmp_path / "b", steps=2).hash == first.hash


class Sides(nn.Module):
    """Two logits: the brightness of the left and of the right half."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images[..., :4].mean(dim=(1, 2, 3)), images[..., 4:].mean(dim=(1, 2, 3))], dim=1)


class UpperLeftPixel(nn.Module):
    """Two logits that depend only on the upper left pixel."""

    def forward(self, images: Tensor) -> Tensor:
        pixel = images[:, 0, 0, 0]
        return torch.stack([-pixel, pixel], dim=1)


@pytest.fixture(scope="module")
def noise() -> LabelledImages:
    """Noise that does not fit into a code, so the generator must choose what to keep."""
    pixels = torch.randint(256, (80, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return LabelledImages(pixels, torch.zeros(80, dtype=torch.int64))


@pytest.mark.slow
def test_it_keeps_what_the_judge_sees(noise: LabelledImages, tmp_path: Path) -> None:
    def lost(generator: TrainedVAE) -> float:
        rebuilt = generator.decode(generator.encode(noise.pixels)[0])
        return (rebuilt - noise.pixels.float())[:, 0, 0, 0].square().mean().item()

    plain = made(noise, tmp_path)
    kept = made(noise, tmp_path, judge=Classifier(UpperLeftPixel(), 2, image_shape=(1, 8, 8)), perceptual_weight=5.0)
    assert lost(kept) < lost(plain) / 3


def test_the_weights_depend_on_the_judge(noise: LabelledImages, tmp_path: Path) -> None:
    judges = [None, *(Classifier(module, 2, image_shape=(1, 8, 8)) for module in (UpperLeftPixel(), Sides()))]
    assert len({made(noise, tmp_path, steps=3, judge=judge).hash for judge in judges}) == 3


def test_a_generator_is_trained_again_for_another_judge(halves: LabelledImages, tmp_path: Path) -> None:
    progress = Recorder()
    for seed in (0, 1, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            judge = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), 2, image_shape=(1, 8, 8))
        made(halves, tmp_path, steps=2, judge=judge, progress=progress)
    assert progress.done == 4


def test_the_code_has_16_dimensions_per_channel_by_default() -> None:
    assert [BetaVAE((channels, 28, 28), GeneratorSettings()).latent_dim for channels in (1, 3)] == [16, 48]
    assert BetaVAE((3, 28, 28), GeneratorSettings(latent_dim=7)).latent_dim == 7


def test_the_paper_s_network_has_the_shapes_of_its_appendix() -> None:
    settings = GeneratorSettings.paper(60_000)
    assert (settings.beta, settings.batch_size, settings.learning_rate, settings.warmup) == (4.0, 2048, 1e-3, 500)
    assert settings.steps == 800 * 30
    network = BetaVAE((1, 28, 28), settings)

    def shapes(kind: type[nn.Module], part: nn.Module) -> list[tuple[int, ...]]:
        return [tuple(module.weight.shape) for module in part.modules() if isinstance(module, kind)]

    assert shapes(nn.Conv2d, network.encoder) == [(32, 1, 4, 4), (32, 32, 4, 4), (32, 32, 4, 4)]
    assert shapes(nn.Linear, network.encoder) == [(256, 512), (256, 256)]
    assert shapes(nn.Linear, network.moments) == [(20, 256)]
    assert shapes(nn.Linear, network.decoder) == [(256, 10), (256, 256), (512, 256)]
    assert shapes(nn.ConvTranspose2d, network.decoder) == [(32, 32, 4, 4), (32, 32, 4, 4), (32, 1, 4, 4)]


@pytest.mark.parametrize(
    ("codes", "decoded", "message"),
    [
        (torch.zeros(2), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"means of shape \(2,\)"),
        (torch.zeros(3, 4), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"means of shape \(3, 4\)"),
        (torch.zeros(2, 4).int(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"torch.int32.* must be float"),
        (torch.zeros(2, 4), torch.zeros(2, 1, 8, 8), r"decodes to torch.float32"),
        (torch.zeros(2, 4), torch.zeros(2, 1, 9, 8, dtype=torch.uint8), r"shape \(2, 1, 9, 8\)"),
    ],
)
def test_a_generator_of_the_wrong_shape_or_type_is_refused(codes: Tensor, decoded: Tensor, message: str) -> None:
    class Wrong:
        hash = "0" * 64

        def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            return codes, codes

        def decode(self, codes: Tensor) -> Tensor:
            return decoded

    with pytest.raises(DefuseError, match=message):
        check_generator(Wrong(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8))


def test_the_old_name_of_image_generator_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="Generator is now pytest_defuse.ImageGenerator"):
        assert module.Generator is ImageGenerator
    with pytest.raises(AttributeError, match="has no attribute 'Generators'"):
        _ = module.Generators
