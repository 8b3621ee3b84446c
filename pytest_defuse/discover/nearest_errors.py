"""Novelty: how far a region's failures are from errors on training images (Defuse, section 4.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NearestErrors:
    """For each of n images, the nearest image that the model gets wrong.

    Attributes:
        positions: int64 n, positions in the errors.
        distances: float32 n, root mean square difference over pixels in [0, 1].
    """

    positions: Tensor
    distances: Tensor


def nearest_errors(images: Tensor, errors: Tensor) -> NearestErrors | None:
    """Find the nearest error of each image, by L2 distance between pixels as in the paper.

    Args:
        images: uint8 n x C x H x W.
        errors: uint8 m x C x H x W, images that the model gets wrong.

    Returns:
        None if there are no errors.
    """
    if not len(errors):
        return None
    queries, others = images.flatten(1).float() / 255, errors.flatten(1).float() / 255
    distances, positions = torch.cdist(queries, others).min(dim=1)
    return NearestErrors(positions, distances / queries.shape[1] ** 0.5)
