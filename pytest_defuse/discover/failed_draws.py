"""Failed draws: latent codes of images that the model gets wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


class Columns:
    """Base class of dataclasses whose fields are tensors with one row for each item."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self, rows: Tensor | slice) -> Self:
        return type(self)(*(values[rows] for values in vars(self).values()))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Concatenate one or more parts."""
        return cls(*(torch.cat(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))


@dataclass(frozen=True, eq=False)
class FailedDraws(Columns):
    """n draws from latent space that failed.

    Attributes:
        codes: float32 n x d.
        labels: int64 n, what the image shows: the label of the judges (reference classifiers that give a second
            opinion), or in mode ``paper`` that of the source image.
        predictions: int64 n, the model's predictions.
        image_indices: int64 n, index in the training set of the image that the draw started from.
        draw_numbers: int64 n, number of the draw at that image.
    """

    codes: Tensor
    labels: Tensor
    predictions: Tensor
    image_indices: Tensor
    draw_numbers: Tensor


def occurrence_numbers(groups: Tensor) -> Tensor:
    """For each value of an int64 tensor, the number of equal values before it."""
    order = groups.argsort(stable=True)
    _, counts = groups[order].unique_consecutive(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.empty_like(order).scatter(0, order, torch.arange(len(order)) - starts)
