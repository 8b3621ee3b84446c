import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.classifier import BATCH, Classifier
from pytest_defuse.errors import DefuseError
from pytest_defuse.explain.features import penultimate_features


def images(count: int) -> Tensor:
    return torch.randint(256, (count, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3))


class Unreached(nn.Module):
    """Its auxiliary head comes last and is not used."""

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


@pytest.mark.parametrize("count", [0, 1, BATCH + 1])
def test_features_are_what_the_last_linear_layer_sees(count: int) -> None:
    model = network()
    features = penultimate_features(Classifier(model, 3), images(count))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, model[:3](images(count) / 255).detach())


def test_normalisation_comes_before_the_features() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    features = penultimate_features(Classifier(model, 3, normalize=lambda x: 2 * x - 1), images(2))
    torch.testing.assert_close(features, (images(2) / 255 * 2 - 1).flatten(1))


def test_half_precision_models_give_float32() -> None:
    assert penultimate_features(Classifier(network().bfloat16(), 3), images(2)).dtype == torch.float32


def test_a_model_that_writes_into_its_features_gives_them_as_the_layer_saw_them() -> None:
    features = penultimate_features(Classifier(Overwriting(), 3), images(2))
    torch.testing.assert_close(features, images(2).flatten(1) / 255)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()), "the model has no nn.Linear"),
        (Unreached(), "the last nn.Linear of the model, 'auxiliary', was not called"),
        (Rows(), r"'head', saw \(2, 4, 4\) for 2 images: failure modes need one vector of 4 features"),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), r"the model returned shape \(2, 4\) for 3 classes"),
    ],
)
def test_models_without_such_features_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(DefuseError, match=message):
        penultimate_features(Classifier(model, 3), images(2))


@pytest.mark.parametrize("class_count", [3, 4])
def test_no_hook_stays_on_the_classifier(class_count: int) -> None:
    classifier = Classifier(network(), class_count)
    try:
        penultimate_features(classifier, images(2))
    except DefuseError:
        assert class_count == 4
    assert not any(module._forward_pre_hooks for module in classifier.module.modules())
