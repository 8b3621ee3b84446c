"""The default augmentation of training and scenario images."""

import pytest
import torch
from torch import Tensor

from pytest_defuse.correct.augment import mild


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def images(request: pytest.FixtureRequest) -> Tensor:
    """1,000 images of noise."""
    return torch.rand(1000, request.param, 12, 9, generator=torch.Generator().manual_seed(0))


def test_half_of_the_images_stay_the_same_bits(images: Tensor) -> None:
    torch.manual_seed(0)
    same = (mild(images) == images).flatten(1).all(dim=1).sum().item()
    # 500, and about two altered images to which no change was applied; the std is 16.
    assert 435 < same < 565


def test_altered_images_keep_shape_dtype_and_range(images: Tensor) -> None:
    torch.manual_seed(0)
    altered = mild(images)
    assert altered.shape == images.shape
    assert altered.dtype == images.dtype
    assert altered.min() >= 0
    assert altered.max() <= 1


def test_every_call_alters_other_images_and_the_seed_decides_which(images: Tensor) -> None:
    torch.manual_seed(0)
    first, second = mild(images), mild(images)
    torch.manual_seed(0)
    again = mild(images)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
