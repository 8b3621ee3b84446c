"""Failures: latent codes of images that the model gets wrong."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Failures:
    """Draws that failed.

    Attributes:
        codes: float32 n x d.
        labels: int64 n, what the images show: to the judges, or in the papers' mode the label of the source image.
        predictions: int64 n, what the model says.
        images: int64 n, index of the training image that the draw started from.
        draws: int64 n, number of the draw at that image.
    """

    codes: Tensor
    labels: Tensor
    predictions: Tensor
    images: Tensor
    draws: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, chosen: Tensor | slice) -> "Failures":
        return Failures(*(part[chosen] for part in vars(self).values()))

    @staticmethod
    def joined(parts: "list[Failures]") -> "Failures":
        """All parts, at least one, as one."""
        return Failures(*(torch.cat(columns) for columns in zip(*(vars(p).values() for p in parts), strict=True)))


def ranks(groups: Tensor) -> Tensor:
    """How many equal values stand before each value of an int64 tensor."""
    order = groups.argsort(stable=True)
    _, counts = groups[order].unique_consecutive(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    earlier = torch.empty_like(order)
    earlier[order] = torch.arange(len(order)) - starts
    return earlier
