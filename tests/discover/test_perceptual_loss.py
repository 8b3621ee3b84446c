import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.discover.perceptual_loss import FeatureMaps
from pytest_defuse.subject.classifier import Classifier


def judge(scale: float = 1.0) -> Classifier:
    """Two convolutions and a linear layer; the first multiplies its output by ``scale``, the second divides by it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        head = nn.Linear(96, 3)
    with torch.no_grad():
        first.weight *= scale
        first.bias *= scale
        second.weight /= scale
    return Classifier(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), head), 3)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_distance_is_0_for_equal_images_and_about_2_for_unrelated_ones(pixels: Tensor) -> None:
    maps, images = FeatureMaps(judge(), pixels), pixels / 255
    assert maps.distance(images, images).item() == 0
    near = maps.distance(images, (images + 0.01).clamp(0, 1)).item()
    far = maps.distance(images, images.roll(1, dims=0)).item()
    assert 0 < near < 0.1
    assert 1.5 < far < 2.5


def test_the_scale_of_a_map_does_not_matter(pixels: Tensor) -> None:
    images = pixels / 255
    plain, scaled = (FeatureMaps(judge(s), pixels).distance(images, images.flip(3)) for s in (1.0, 100.0))
    torch.testing.assert_close(plain, scaled)


def test_its_gradient_makes_images_more_similar_to_the_judge(pixels: Tensor) -> None:
    maps, images = FeatureMaps(judge(), pixels), pixels / 255
    moved = images.roll(1, dims=0).requires_grad_()
    before = maps.distance(images, moved)
    (gradient,) = torch.autograd.grad(before, moved)
    assert maps.distance(images, moved - 10 * gradient) < before


def test_the_judge_does_not_change(pixels: Tensor) -> None:
    classifier = judge()
    logits = classifier.logits(pixels)
    FeatureMaps(classifier, pixels).distance(pixels / 255, pixels.flip(3) / 255)
    assert torch.equal(classifier.logits(pixels), logits)
    assert not any(module._forward_hooks for module in classifier.module.modules())


def test_a_judge_without_convolutions_is_compared_by_its_logits(pixels: Tensor) -> None:
    maps = FeatureMaps(Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 3), pixels)
    assert [m.shape for m in maps.maps(pixels / 255)] == [(40, 3)]


def test_images_are_normalised_for_the_judge(pixels: Tensor) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    shifted = Classifier(module, 3, normalize=lambda images: images - 0.5)
    logits = FeatureMaps(shifted, pixels).maps(pixels / 255)[-1]
    torch.testing.assert_close(logits, shifted.logits(pixels))
