import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.correct import interpolate
from pytest_defuse.correct.interpolate import interpolated, recompute_batch_norm
from tests.correct.sides import Net, sides


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_ends_are_exact_and_the_middle_is_the_mean(dtype: torch.dtype) -> None:
    first, second = ({"w": torch.randn(50).to(dtype), "count": torch.tensor(n)} for n in (1, 2))
    assert torch.equal(interpolated(first, second, 0)["w"], first["w"])
    assert torch.equal(interpolated(first, second, 1)["w"], second["w"])
    middle = interpolated(first, second, 0.5)
    assert middle["w"].dtype == dtype
    assert torch.allclose(middle["w"].double(), (first["w"].double() + second["w"].double()) / 2, atol=1e-2)
    assert middle["count"] == 2


def images() -> Tensor:
    return torch.stack([torch.from_numpy(image) for image, _ in sides(100, seed=0)])


def test_statistics_are_those_of_the_images_with_the_weights() -> None:
    net, pixels = Net(), images()
    recompute_batch_norm(net, pixels, lambda batch: net(batch / 255), seed=0)
    hidden = net.hidden(net.scale(pixels / 255).flatten(1))
    assert torch.allclose(net.norm.running_mean, hidden.mean(dim=0), atol=1e-4)
    assert torch.allclose(net.norm.running_var, hidden.var(dim=0), atol=1e-3)
    assert net.norm.momentum == 0.1
    assert not net.training


def test_frozen_statistics_are_kept() -> None:
    net = Net()
    net.norm.requires_grad_(False)
    before = net.norm.running_mean.clone()
    recompute_batch_norm(net, images(), lambda batch: net(batch / 255), seed=0)
    assert torch.equal(net.norm.running_mean, before)


def test_a_model_without_batch_norm_is_not_run() -> None:
    assert recompute_batch_norm(nn.Linear(2, 2), images(), lambda batch: pytest.fail("run"), seed=0) == 0


def test_the_sample_is_random_whatever_the_order_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpolate, "BATCH_NORM_IMAGES", 40)
    net, pixels = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1)), torch.arange(100).view(100, 1, 1, 1)
    batches: list[Tensor] = []

    def forward(batch: Tensor) -> None:
        batches.append(batch)
        net(batch.float())

    assert recompute_batch_norm(net, pixels, forward, seed=0) == 40
    sample = torch.cat(batches).flatten()
    assert len(sample.unique()) == 40
    assert (sample >= 50).sum() >= 10, "images at the end, which may be of one class, are used too"
    recompute_batch_norm(net, pixels, forward, seed=0)
    assert torch.equal(torch.cat(batches).flatten()[40:], sample), "the seed decides"
