import copy

import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.batches import DEFAULT_BATCH_SIZE
from pytest_defuse.subject.classifier import Classifier


class Counting(nn.Module):
    """A model with everything that could be changed by accident: batch norm, a buffer, a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 3)
        self.head.bias.requires_grad_(False)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.head(self.drop(self.norm(x)).view(x.size(0), -1))
        return logits


class Returning(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


@pytest.fixture
def model() -> Counting:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Counting().train()


def images(count: int) -> Tensor:
    return torch.randint(256, (count, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [0, 1, DEFAULT_BATCH_SIZE, 2 * DEFAULT_BATCH_SIZE + 1])
def test_logits_are_those_of_the_model_in_eval_mode(model: Counting, count: int) -> None:
    logits = Classifier(model, 3).logits(images(count))
    assert logits.shape == (count, 3)
    assert logits.dtype == torch.float32
    if count:  # this model, like many, cannot reshape an empty batch
        torch.testing.assert_close(logits, copy.deepcopy(model).eval()(images(count) / 255).detach())


def test_predictions_are_the_largest_logits(model: Counting) -> None:
    classifier = Classifier(model, 3)
    predictions = classifier.predict(images(50))
    assert predictions.dtype == torch.int64
    assert torch.equal(predictions, classifier.logits(images(50)).argmax(dim=1))
    assert classifier.predict(images(0)).shape == (0,)


def test_normalisation_comes_between_pixels_and_model(model: Counting) -> None:
    normalized = Classifier(model, 3, normalize=lambda x: (x - 0.5) / 0.25).logits(images(5))
    torch.testing.assert_close(normalized, copy.deepcopy(model).eval()((images(5) / 255 - 0.5) / 0.25).detach())


def test_a_normalisation_in_place_leaves_the_pixels_alone(model: Counting) -> None:
    pixels = images(5)
    Classifier(model, 3, normalize=lambda x: x.sub_(0.5)).logits(pixels)
    assert torch.equal(pixels, images(5))


def test_the_users_model_stays_as_it_was(model: Counting) -> None:
    before = copy.deepcopy(model.state_dict())
    Classifier(model, 3).predict(images(300))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, False]


def test_the_copy_does_not_follow_the_users_model(model: Counting) -> None:
    classifier = Classifier(model, 3)
    before = classifier.logits(images(5))
    with torch.no_grad():
        model.head.weight.zero_()
    assert torch.equal(classifier.logits(images(5)), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_precisions_work(model: Counting, dtype: torch.dtype) -> None:
    logits = Classifier(copy.deepcopy(model).to(dtype), 3).logits(images(20))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, Classifier(model, 3).logits(images(20)), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((torch.zeros(2, 3), None), "net returned a tuple: it must return its logits only, a tensor of shape N x 3"),
        ({"logits": torch.zeros(2, 3)}, "net returned a dict"),
        (torch.zeros(2, 4), r"net returned shape \(2, 4\) for 3 classes .*: its logits must be N x 3, in the order of"),
        (torch.zeros(2, 3, 1), r"net returned shape \(2, 3, 1\) for 3 classes"),
        (torch.zeros(2), r"net returned shape \(2,\) for 3 classes"),
        (torch.zeros(1, 3), r"net returned shape \(1, 3\) for 3 classes and 2 images"),
        (
            torch.tensor([[0, 0, torch.nan], [0, 0, 0]]),
            "NaN or infinite logits for 1 of 2 images: check its checkpoint",
        ),
        (torch.tensor([[0, 0, torch.inf], [torch.nan, 0, 0]]), "NaN or infinite logits for 2 of 2 images"),
    ],
)
def test_outputs_other_than_logits_are_refused(output: object, message: str) -> None:
    with pytest.raises(DefuseError, match=message):
        Classifier(Returning(output), 3, name="net").logits(images(2))


def test_the_hash_belongs_to_the_weights(model: Counting) -> None:
    original = Classifier(model, 3).hash
    assert Classifier(copy.deepcopy(model).eval().requires_grad_(False), 3).hash == original
    with torch.no_grad():
        model.head.bias[1] += 1e-6
    assert Classifier(model, 3).hash != original


class Precision(nn.Module):
    """Remembers whether convolutions on GPUs may use TensorFloat-32 while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.allowed.append(torch.backends.cudnn.allow_tf32)
        return images.flatten(1)[:, :2]


def test_logits_are_computed_in_float32_whatever_the_user_allows() -> None:
    assert torch.backends.cudnn.allow_tf32, "torch's default"
    classifier = Classifier(Precision(), 2, image_shape=(1, 8, 8))
    classifier.logits(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    assert len(classifier.identity.outputs) == 8
    assert classifier.module.allowed == [False, False]
    assert torch.backends.cudnn.allow_tf32
