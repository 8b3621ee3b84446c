import math

import pytest
import torch
from torch import Tensor

from pytest_defuse.subject.affine import transformed


def line(height: int, width: int) -> Tensor:
    """An image with a horizontal line through its centre."""
    image = torch.zeros(1, 1, height, width)
    image[..., height // 2 - 1 : height // 2 + 1, :] = 1.0
    return image


def slope(image: Tensor) -> float:
    """The angle of a line in degrees, by its least-squares fit."""
    y, x = (image[0, 0] > 0.5).nonzero().double().T
    x, y = x - x.mean(), y - y.mean()
    return math.degrees(math.atan((x * y).sum() / (x * x).sum()))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 128), (128, 32)])
def test_an_image_of_any_shape_is_rotated_by_the_angle(height: int, width: int) -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    angle = torch.tensor([math.radians(10)])
    rotated = transformed(line(height, width), angle, one, zero, zero, zero)
    assert abs(slope(rotated)) == pytest.approx(10, abs=1.5)


def test_without_a_change_an_image_stays_the_same() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    images = torch.rand(2, 3, 8, 12)
    assert torch.allclose(transformed(images, zero, one, zero, zero, zero), images, atol=1e-6)


def test_a_translation_is_a_share_of_the_side() -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    moved = transformed(line(8, 20), zero, one, zero, zero, torch.tensor([0.25]))
    assert torch.allclose(moved[0, 0, 1:3], torch.ones(2, 20))
