"""Mild augmentation of training and scenario images alike.

Scenario images come from a generator. Were they the only soft ones in a batch, a model could learn
"soft means the scenarios' labels"; turned, blurred and paled as training images are, they teach what they show.
Half of the images stay as they are: a model that sees altered ones alone loses on plain ones.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def mild(images: Tensor) -> Tensor:
    """Float images N x C x H x W in [0, 1], half of them altered: each change at random strength on half of those.

    Turned by up to 9 degrees, scaled and sheared by up to 10%, moved by up to 5% of a side; blurred by up
    to a 3 x 3 binomial kernel; contrast lowered by up to 40%; Gaussian noise of up to 5%. The random numbers
    are torch's global ones on the CPU, so every device sees the same.
    """
    altered = (_half(len(images)) > 0).view(-1, 1, 1, 1).to(images.device)
    angle, scale, shear, x, y = (_half(len(images)) * (2 * torch.rand(5, len(images)) - 1)).unbind()
    cos, sin = (0.15 * angle).cos() * (1 + 0.1 * scale), (0.15 * angle).sin() * (1 + 0.1 * scale)
    rows = torch.stack([cos, 0.1 * shear - sin, 0.1 * x, sin, cos, 0.1 * y], dim=1).view(-1, 2, 3).to(images)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    blur, pale, noise = (_strength(len(images)).to(images) for _ in range(3))
    soft = turned + blur * (_blurred(turned) - turned)
    flat = soft + 0.4 * pale * (soft.mean(dim=(1, 2, 3), keepdim=True) - soft)
    grainy = (flat + 0.05 * noise * torch.randn(images.shape).to(images)).clamp(0, 1)
    return torch.where(altered, grainy, images)


def _half(count: int) -> Tensor:
    return (torch.rand(count) < 0.5).float()


def _strength(count: int) -> Tensor:
    return (_half(count) * torch.rand(count)).view(-1, 1, 1, 1)


def _blurred(images: Tensor) -> Tensor:
    row = torch.tensor([0.25, 0.5, 0.25]).to(images)
    kernel = torch.outer(row, row).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1])
