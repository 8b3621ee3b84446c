"""Failed draws: latent codes of images that the model gets wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FailedDraws:
    """Draws from latent space that failed.

    Attributes:
        codes: float32 n x d.
        labels: int64 n, what the image shows: the judges' label, or in mode ``paper`` the label of the source image.
        predictions: int64 n, the model's predictions.
        image_indices: int64 n, index in the training set of the image that the draw started from.
        draw_numbers: int64 n, number of the draw at that image.
    """

    codes: Tensor
    labels: Tensor
    predictions: Tensor
    image_indices: Tensor
    draw_numbers: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, chosen: Tensor | slice) -> "FailedDraws":
        return FailedDraws(*(values[chosen] for values in vars(self).values()))

    @staticmethod
    def concatenate(parts: "Sequence[FailedDraws]") -> "FailedDraws":
        """All parts, at least one, as one."""
        return FailedDraws(*(torch.cat(columns) for columns in zip(*(vars(p).values() for p in parts), strict=True)))


def occurrence_numbers(groups: Tensor) -> Tensor:
    """For each value of an int64 tensor, the number of equal values before it."""
    order = groups.argsort(stable=True)
    _, counts = groups[order].unique_consecutive(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(len(order)) - starts
    return numbers
