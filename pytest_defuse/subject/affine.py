"""Random affine changes of images, one for each image."""

import torch
from torch import Tensor
from torch.nn import functional as F


def transformed(images: Tensor, angle: Tensor, scale: Tensor, shear: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Rotate, scale, shear and translate each image in pixel coordinates; borders are repeated.

    An image that is not square is rotated, not sheared: one pixel is the same length in both directions.

    Args:
        images: float N x C x H x W.
        angle: radians, N.
        scale: factors, N; above 1 the image becomes smaller.
        shear: horizontal shift per pixel of height, N.
        x, y: translation as a share of the width and of the height, N each.

    Returns:
        float N x C x H x W.
    """
    height, width = images.shape[-2:]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # affine_grid has coordinates from -1 to 1 in both directions: 2 is a side, whatever its number of pixels.
    rows = [cos, (shear - sin) * (height / width), 2 * x, sin * (width / height), cos, 2 * y]
    matrices = torch.stack(rows, dim=1).view(-1, 2, 3).to(images)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
