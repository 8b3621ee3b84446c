"""Mild augmentation, the same for training and scenario images, so that smoothness does not reveal scenario images.

Half of the images are not changed: training only on altered images costs accuracy on plain ones
(benchmarks/correction.py).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pytest_defuse.subject.affine import transformed


def mild(images: Tensor) -> Tensor:
    """Augment float images N x C x H x W in [0, 1]: half are altered, each change applied to half of these.

    Rotation up to 9 degrees, scale and shear up to 10%, translation up to 5% of a side; blur up to a 3 x 3 binomial
    kernel; contrast reduced by up to 40%; Gaussian noise with a std of up to 5%. The strengths are random and our
    choice. The random numbers are torch's global ones on the CPU, so they are the same on every device.
    """
    altered = (_half(len(images)) > 0).view(-1, 1, 1, 1).to(images.device)
    angle, scale, shear, x, y = (_half(len(images)) * (2 * torch.rand(5, len(images)) - 1)).unbind()
    warped = transformed(images, 0.15 * angle, 1 + 0.1 * scale, 0.1 * shear, 0.05 * x, 0.05 * y)
    blur, contrast, noise = (_strength(len(images)).to(images) for _ in range(3))
    blurred = warped + blur * (_blurred(warped) - warped)
    flattened = blurred + 0.4 * contrast * (blurred.mean(dim=(1, 2, 3), keepdim=True) - blurred)
    noisy = (flattened + 0.05 * noise * torch.randn(images.shape).to(images)).clamp(0, 1)
    return torch.where(altered, noisy, images)


def _half(count: int) -> Tensor:
    return (torch.rand(count) < 0.5).float()


def _strength(count: int) -> Tensor:
    return (_half(count) * torch.rand(count)).view(-1, 1, 1, 1)


def _blurred(images: Tensor) -> Tensor:
    row = torch.tensor([0.25, 0.5, 0.25]).to(images)
    kernel = torch.outer(row, row).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1])
