"""Are the errors new? Pictures of a region beside the nearest errors on training images (Defuse, section 4.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NearestErrors:
    """For each of n pictures, the image nearest to it that the model gets wrong.

    Attributes:
        positions: int64 n, which of the errors it is.
        distances: float32 n, between the two: the root mean square over pixels in [0, 1].
    """

    positions: Tensor
    distances: Tensor


def nearest_errors(pictures: Tensor, errors: Tensor) -> NearestErrors | None:
    """Find the nearest error of each picture, by L2 distance between pixels as in the paper.

    Args:
        pictures: uint8 n x C x H x W.
        errors: uint8 m x C x H x W, images that the model gets wrong.

    Returns:
        None where there is no error.
    """
    if not len(errors):
        return None
    queries, others = pictures.flatten(1).float() / 255, errors.flatten(1).float() / 255
    distances, positions = torch.cdist(queries, others).min(dim=1)
    return NearestErrors(positions, distances / queries.shape[1] ** 0.5)
