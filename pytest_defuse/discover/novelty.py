"""Are the errors new? Pictures of a region beside the nearest errors on training images (Defuse, section 4.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 4096
"""Training images compared at once: bounds memory, changes nothing else."""


@dataclass(frozen=True, eq=False)
class NearestErrors:
    """For each of n pictures, the training image nearest to it that the model gets wrong.

    Attributes:
        images: int64 n, its index among the training images.
        distances: float32 n, between the two: the root mean square over pixels in [0, 1].
    """

    images: Tensor
    distances: Tensor


def nearest_errors(pictures: Tensor, pixels: Tensor, wrong: Tensor) -> NearestErrors | None:
    """Find the nearest error of each picture, by L2 distance between pixels as in the paper.

    Args:
        pictures: uint8 n x C x H x W.
        pixels: uint8 N x C x H x W, the training images.
        wrong: bool N, where the model is wrong on them.

    Returns:
        None where the model is right on every training image.
    """
    errors = wrong.nonzero().squeeze(1)
    if not len(errors):
        return None
    queries = pictures.flatten(1).float() / 255
    distances = torch.cat(
        [torch.cdist(queries, pixels[chunk].flatten(1).float() / 255) for chunk in errors.split(CHUNK)], dim=1
    )
    nearest, positions = distances.min(dim=1)
    return NearestErrors(errors[positions], nearest / queries.shape[1] ** 0.5)
