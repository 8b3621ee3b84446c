import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_defuse.explain.features import FeatureNetwork
from pytest_defuse.explain.robust_training import projected
from pytest_defuse.explain.visuals import feature_attack, heatmaps, most_activating
from pytest_defuse.subject.classifier import Classifier
from tests.examples import fewer_examples


def spotted(size: int = 16) -> Tensor:
    """Three dark images, with a bright spot top left, bottom right, and none."""
    pixels = torch.zeros(3, 1, size, size, dtype=torch.uint8)
    pixels[0, :, 1:4, 1:4] = 255
    pixels[1, :, size - 4 : size - 1, size - 4 : size - 1] = 255
    return pixels


class Convolutional(nn.Module):
    """Feature 2 is the mean of the image's brightness; the others are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 1, bias=False)
        self.convolution.weight.data = torch.tensor([0.0, 0.0, 1.0, 0.0])[:, None, None, None]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.convolution(x)).flatten(1))
        return logits


class Transformer(nn.Module):
    """A class token in front of 4 x 4 patches, each the brightness of its patch in feature 2."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.AvgPool2d(4)
        self.embed = nn.Linear(1, 4, bias=False)
        self.embed.weight.data = torch.tensor([0.0, 0.0, 1.0, 0.0])[:, None]
        self.norm = nn.Identity()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(self.patches(x).flatten(2).transpose(1, 2))
        with_class = self.norm(torch.cat([tokens.mean(dim=1, keepdim=True) * 2, tokens], dim=1))
        logits: Tensor = self.head(with_class[:, 0])
        return logits


class Flat(nn.Module):
    """Has no feature maps: feature 2 is the mean of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(256, 4, bias=False)
        self.hidden.weight.data = torch.tensor([0.0, 0.0, 1.0, 0.0])[:, None].expand(4, 256) / 256
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(x.flatten(1)))
        return logits


def network(model: nn.Module) -> FeatureNetwork:
    return FeatureNetwork(Classifier(model, 3))


@pytest.mark.parametrize("model", [Convolutional(), Transformer(), Flat()], ids=["map", "tokens", "occlusion"])
class TestHeatmaps:
    def test_they_are_large_at_the_spot(self, model: nn.Module) -> None:
        maps = heatmaps(network(model), spotted(), 2)
        assert maps.shape == (3, 16, 16)
        assert maps[0, 1:4, 1:4].mean() > 0.5
        assert maps[0, 8:, 8:].max() < 0.1
        assert maps[1, -4:-1, -4:-1].mean() > 0.5
        assert maps[1, :8, :8].max() < 0.1
        assert maps.min() == 0
        assert maps.max() <= 1

    def test_a_map_without_contrast_is_zero_not_nan(self, model: nn.Module) -> None:
        assert heatmaps(network(model), spotted(), 2)[2].eq(0).all()
        assert heatmaps(network(model), spotted(), 0).eq(0).all()

    def test_hooks_are_removed(self, model: nn.Module) -> None:
        found = network(model)
        heatmaps(found, spotted(), 2)
        assert not any(module._forward_hooks for module in found.classifier.module.modules())


def test_a_map_is_the_feature_map_itself_not_an_occlusion() -> None:
    """A convolution of size 1 shows the exact spot; occlusion cannot."""
    maps = heatmaps(network(Convolutional()), spotted(), 2)
    assert maps[0].gt(0).nonzero().tolist() == [[row, column] for row in (1, 2, 3) for column in (1, 2, 3)]


def test_maps_of_another_layer_with_as_many_channels_are_not_used() -> None:
    """The four channels before a linear layer of four features are not the features' maps."""
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(1024, 4), nn.Linear(4, 3))
    model[0].weight.data[:] = 0.0
    model[0].weight.data[0] = 1.0  # channel 0 sees the image, channel 2 nothing
    model[2].weight.data[:] = 0.0
    model[2].weight.data[2, :256] = 1.0 / 256  # feature 2 reads channel 0
    maps = heatmaps(network(model), spotted(), 2)
    assert maps[0, 1:4, 1:4].mean() > 0.5


@pytest.mark.parametrize("radius", [0.5, 2.0])
def test_an_attack_strengthens_the_feature_inside_the_ball(radius: float) -> None:
    found, pixels = network(Convolutional()), spotted()
    before = found.features(pixels)[:, 2]
    attacked = feature_attack(found, pixels, 2, radius=radius)
    distance = (attacked - pixels / 255).flatten(1).norm(dim=1)
    assert distance.max() <= radius + 1e-5
    assert distance.min() > 0.9 * radius
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (found.forward(attacked)[:, 2].numpy() > before).all()


def test_an_attack_on_a_feature_without_gradient_changes_nothing() -> None:
    pixels = spotted()
    assert torch.equal(feature_attack(network(Convolutional()), pixels, 0), pixels / 255)


def test_the_default_radius_grows_with_the_image() -> None:
    pixels = spotted()
    attacked = feature_attack(network(Convolutional()), pixels, 2)
    assert (attacked - pixels / 255).flatten(1).norm(dim=1).max() == pytest.approx(0.1 * 16, rel=0.01)


@fewer_examples(30)
@given(st.integers(0, 10_000), st.floats(0.01, 5))
def test_projection_ends_in_the_ball_and_in_the_box(seed: int, radius: float) -> None:
    random = torch.Generator().manual_seed(seed)
    origin = torch.rand(2, 3, 4, 4, generator=random)
    moved = projected(origin + 2 * torch.randn(2, 3, 4, 4, generator=random), origin, radius)
    assert (moved - origin).flatten(1).norm(dim=1).max() <= radius * (1 + 1e-5)
    assert moved.min() >= 0
    assert moved.max() <= 1
    inside = origin + 0.001 * radius * (0.5 - origin) / 8
    torch.testing.assert_close(projected(inside, origin, radius), inside)


def test_the_most_activating_images_come_strongest_first() -> None:
    features = np.array([[0.0, 3.0], [0.0, 5.0], [0.0, 4.0], [0.0, 9.0]], dtype=np.float32)
    assert most_activating(features, 1, np.array([0, 1, 2]), count=2).tolist() == [1, 2]
