from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.explain.features import FEATURE_BATCH_SIZE, FeatureNetwork
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from tests.recorder import Recorder


def images(count: int) -> Tensor:
    return torch.randint(256, (count, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3))


def features_of(model: nn.Module, layer: str | None = None, **changes: object) -> FeatureNetwork:
    return FeatureNetwork(Classifier(model, 3, **({"image_shape": (1, 4, 4)} | changes)), layer)


class Unreached(nn.Module):
    """Registers an unused auxiliary head last."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)
        self.auxiliary = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


class Rows(nn.Module):
    """Applies its linear layer to each row of the image, and averages after it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x[:, 0]).mean(dim=1)
        return logits


class Overwriting(nn.Module):
    """Writes into the features after using them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = x.flatten(1)
        logits: Tensor = self.head(features)
        features.zero_()
        return logits


class Scaled(nn.Module):
    """Its factor is neither in its state nor in its ``repr``."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.body = nn.Flatten()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.body(self.factor * x))
        return logits


@pytest.mark.parametrize("count", [1, FEATURE_BATCH_SIZE + 1])
def test_features_are_the_input_of_the_last_linear_layer(count: int) -> None:
    model = network()
    found = features_of(model)
    assert found.name == "input of '3'"
    features = found.features(images(count))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, model[:3](images(count) / 255).detach(), rtol=1e-5, atol=1e-6)


def test_a_layer_is_chosen_by_name() -> None:
    model = network()
    found = features_of(model, "1")
    assert found.name == "output of '1'"
    np.testing.assert_allclose(found.features(images(3)), model[:2](images(3) / 255).detach(), rtol=1e-5, atol=1e-6)


def test_feature_maps_and_tokens_are_averaged() -> None:
    pixels = images(3)
    maps = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten(), nn.Linear(24, 3))
    expected = maps[0](pixels / 255).mean(dim=(2, 3)).detach()
    np.testing.assert_allclose(features_of(maps, "0").features(pixels), expected, rtol=1e-4, atol=1e-6)
    tokens = nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (4, 4)), nn.Flatten(1, 2), nn.Linear(4, 5))
    expected = tokens(pixels / 255).mean(dim=1).detach()
    np.testing.assert_allclose(features_of(tokens, "3").features(pixels), expected, rtol=1e-4, atol=1e-6)


def test_a_network_without_logits_can_be_used() -> None:
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(16, 7))
    assert features_of(trunk, "1").features(images(4)).shape == (4, 7)


def test_images_are_normalized_first() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    features = features_of(model, normalize=lambda x: 2 * x - 1).features(images(2))
    np.testing.assert_allclose(features, (images(2) / 255 * 2 - 1).flatten(1), rtol=1e-6)


def test_half_precision_models_give_float32() -> None:
    assert features_of(network().bfloat16()).features(images(2)).dtype == np.float32


def test_features_are_copied_before_the_model_overwrites_them() -> None:
    np.testing.assert_allclose(features_of(Overwriting()).features(images(2)), (images(2) / 255).flatten(1))


def test_hooks_are_removed() -> None:
    found = features_of(network())
    found.features(images(2))
    for module in found.classifier.module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()), None, r"has no nn\.Linear"),
        (network(), "head", r"has no layer 'head': it has 0, 1, 2, 3\."),
        (Unreached(), None, r"input of 'auxiliary' of .* was computed 0 times"),
        (Rows(), None, r"is \(2, 4, 4\) for 2 images"),
        (nn.Sequential(nn.Flatten(), nn.LSTM(16, 3)), "1", r"is tuple for 2 images"),
    ],
    ids=["no linear layer", "no such layer", "not run", "several vectors for each image", "not a tensor"],
)
def test_a_layer_that_cannot_be_used_is_refused(model: nn.Module, layer: str | None, message: str) -> None:
    with pytest.raises(DefuseError, match=message):
        features_of(model, layer).features(images(2))


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DefuseError, match="NaN or infinite"):
        features_of(network(), normalize=lambda x: x / 0).features(images(2))


class TestCache:
    def test_features_are_read_from_the_cache(self, tmp_path: Path) -> None:
        pixels = images(FEATURE_BATCH_SIZE + 3)
        first = features_of(network()).features(pixels, tmp_path)
        (file,) = tmp_path.glob("features-*.npy")
        written = file.stat().st_mtime_ns
        again = features_of(network()).features(pixels, tmp_path)
        assert isinstance(again, np.memmap)
        assert file.stat().st_mtime_ns == written
        np.testing.assert_array_equal(first, again)
        np.testing.assert_allclose(first, features_of(network()).features(pixels), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("change", ["images", "weights", "layer", "normalisation"])
    def test_everything_that_changes_features_changes_the_file(self, tmp_path: Path, change: str) -> None:
        features_of(network()).features(images(4), tmp_path)
        model = network()
        if change == "weights":
            model[3].bias.data += 1
        layer = "1" if change == "layer" else None
        normalize = (lambda x: x - 0.5) if change == "normalisation" else None
        pixels = images(4).flip(0) if change == "images" else images(4)
        found = features_of(model, layer, normalize=normalize)
        np.testing.assert_allclose(found.features(pixels, tmp_path), found.features(pixels), rtol=1e-5, atol=1e-6)
        assert len(list(tmp_path.glob("features-*.npy"))) == 2

    @pytest.mark.parametrize("content", [b"", lambda b: b[:90], lambda b: b[:-1], lambda b: b[:300] + b"?" + b[301:]])
    def test_a_damaged_file_is_made_again_with_a_sentence(self, tmp_path: Path, content: Any) -> None:
        first = np.array(features_of(network()).features(images(4), tmp_path))
        (file,) = tmp_path.glob("features-*.npy")
        file.write_bytes(content(file.read_bytes()) if callable(content) else content)
        progress = Recorder()
        np.testing.assert_array_equal(features_of(network()).features(images(4), tmp_path, progress), first)
        assert progress.sentences == [f"{file} is damaged: it is computed again"]

    def test_features_of_another_forward_with_the_same_weights_are_read_again(self, tmp_path: Path) -> None:
        assert features_of(Scaled(network(), 1), "body").features(images(4), tmp_path).max() > 0
        progress = Recorder()
        features = features_of(Scaled(network(), -1), "body").features(images(4), tmp_path, progress)
        assert features.max() <= 0
        assert "depends on the model, which has the same weights but now gives other outputs" in progress.sentences[0]

    def test_the_folder_ignores_itself_in_git(self, tmp_path: Path) -> None:
        features_of(network()).features(images(4), tmp_path / "cache")
        assert (tmp_path / "cache" / ".gitignore").read_text() == "*\n"


def test_names_belong_to_one_network_and_layer() -> None:
    keys = {
        features_of(network()).key,
        features_of(network(), "1").key,
        features_of(network().bfloat16()).key,
        features_of(network(), normalize=lambda x: x - 0.5).key,
    }
    assert len(keys) == 4
    assert features_of(network()).key in keys
