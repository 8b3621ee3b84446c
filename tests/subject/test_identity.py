import copy
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import agree
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.identity import Identity, fixed_images

SHAPE = (1, 8, 8)


class Net(nn.Module):
    """A small network whose forward pass takes a function that its state and ``repr`` do not show."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.body = nn.Conv2d(1, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.activation(self.body(x)).mean(dim=(2, 3)))
        return logits


class Wrapped(nn.Module):
    """The same parameters under the same names, and the logits divided by a temperature."""

    def __init__(self, net: Net, temperature: float) -> None:
        super().__init__()
        self.body, self.head, self.activation = net.body, net.head, net.activation
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        return Net.forward(cast(Net, self), x) / self.temperature


def net(activation: Callable[[Tensor], Tensor] = F.relu) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(activation)


def identity(model: nn.Module | None = None, normalize: Any = None, **options: Any) -> Identity:
    classifier = Classifier(net() if model is None else model, 3, image_shape=SHAPE, normalize=normalize, **options)
    return classifier.identity


def shifted(x: Tensor, mean: float = 0.5) -> Tensor:
    return (x - mean) / 0.25


def same(a: Identity, b: Identity) -> tuple[bool, bool]:
    return a.fingerprint == b.fingerprint, agree(a.outputs, b.outputs)


def test_equal_models_are_the_same_whatever_their_mode_and_flags() -> None:
    other = copy.deepcopy(net()).train().requires_grad_(False)
    assert same(identity(), identity(other)) == (True, True)
    assert same(identity(), identity(torch.compile(net(), backend="eager"))) == (True, True)


def test_rounding_does_not_make_another_model() -> None:
    first = identity()
    with torch.autocast("cpu", torch.bfloat16):
        assert same(first, identity()) == (True, True)
    assert agree(first.outputs, Classifier(net().bfloat16(), 3, image_shape=SHAPE).identity.outputs)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.head.bias.data.add_(1e-6),
        lambda model: model.double(),
        lambda model: model.register_buffer("steps", torch.zeros(1)),
        lambda model: model.add_module("drop", nn.Dropout()),
        lambda model: setattr(model, "body", nn.Sequential(model.body)),
    ],
    ids=["values", "dtype", "buffer", "module without state", "names"],
)
def test_state_and_architecture_have_a_fingerprint(change: Callable[[Net], object]) -> None:
    model = net()
    change(model)
    assert identity(model).fingerprint != identity().fingerprint


@pytest.mark.parametrize(
    "other",
    [Net(torch.tanh), Net(F.leaky_relu), Wrapped(net(), -1), Wrapped(net(), 1.1)],
    ids=["tanh", "leaky", "-", "T"],
)
def test_another_forward_with_the_same_weights_has_other_outputs(other: nn.Module) -> None:
    other.load_state_dict(net().state_dict())
    assert not agree(identity(other).outputs, identity().outputs)


def test_one_large_output_hides_no_difference_of_the_others() -> None:
    outputs = torch.tensor([[1.0, -2.0, -1e4], [3.0, 0.5, -1e4]])
    assert agree(outputs, outputs * 1.005)
    assert not agree(outputs, outputs * torch.tensor([-1.0, -1.0, 1.0]))
    assert not agree(outputs, outputs * torch.tensor([1.0, 1.0, 1.1]))


def test_rounding_of_an_output_that_is_almost_0_is_rounding() -> None:
    outputs = torch.tensor([[1.0, -2.0, 1e-9, 0.0], [3.0, 0.5, 0.0, 0.0]])
    assert agree(outputs, outputs + 1e-6)
    assert agree(torch.zeros(2, 3), torch.zeros(2, 3))
    assert not agree(torch.zeros(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize(
    "normalize",
    [lambda x: (x - 0.5) / 0.25, partial(shifted), lambda x: x.sub_(0.5).mul_(4), lambda x: 4 * x.float() - 2],
)
def test_functions_that_compute_the_same_are_the_same_normalize(normalize: Any) -> None:
    assert same(identity(normalize=normalize), identity(normalize=shifted)) == (True, True)
    assert identity(normalize=lambda x: x).fingerprint == identity().fingerprint


@pytest.mark.parametrize("normalize", [partial(shifted, mean=0.499), lambda x: F.pad(x, [1, 1, 1, 1]), lambda x: x / 0])
def test_another_normalize_is_another_model(normalize: Any) -> None:
    assert identity(normalize=normalize).fingerprint != identity(normalize=shifted).fingerprint


def only_float32(x: Tensor) -> Tensor:
    return F.conv2d(x, torch.ones(1, 1, 1, 1))


def test_a_normalize_that_takes_only_float32_has_a_fingerprint() -> None:
    assert identity(normalize=only_float32).fingerprint == identity().fingerprint


@pytest.mark.parametrize(
    ("normalize", "message"),
    [
        (
            lambda x: x + torch.rand_like(x),
            r"of the model is random: it returns different values for the same images\. Move",
        ),
        (lambda x: x[:, 3], r"of the model fails on images of shape \(8, 1, 8, 8\) \(.*\): give a function"),
        (lambda x: x.tolist(), r"of the model returned a list for images of shape \(8, 1, 8, 8\)"),
    ],
    ids=["random", "fails", "no tensor"],
)
def test_a_random_or_failing_normalize_is_one_sentence(normalize: Any, message: str) -> None:
    with pytest.raises(DefuseError, match=message):
        identity(normalize=normalize)


class Stateful(Net):
    """It counts its calls, adds random numbers, and has a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + torch.rand(3)

    def get_extra_state(self) -> object:
        return {"since": object()}

    def set_extra_state(self, state: object) -> None: ...


def test_a_model_with_state_and_random_numbers_has_one_identity_and_leaves_the_generators_alone() -> None:
    model = Stateful()
    before = torch.get_rng_state()
    assert same(identity(model), identity(model)) == (True, True)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.calls == 0


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 9), (3, 300, 300), (1, 1, 1)])
def test_fixed_images_have_the_shape_and_are_fixed(shape: tuple[int, ...]) -> None:
    images = fixed_images(shape)
    assert (tuple(images.shape), images.dtype) == ((8, *shape), torch.uint8)
    assert torch.equal(images, fixed_images(shape))
    assert images.float().std() > 50 or shape == (1, 1, 1)


def test_fixed_images_are_the_same_in_every_version() -> None:
    assert fixed_images((1, 2, 2))[:2].flatten().tolist() == [155, 216, 228, 8, 178, 197, 168, 156]
    assert fixed_images((1, 4, 4))[0, 0].tolist() == [[155, 155, 216, 216]] * 2 + [[228, 228, 8, 8]] * 2
