"""A subject whose failures have one visible cause: a mark in the lower right corner."""

from typing import Any

import torch
from torch import Tensor, nn

from pytest_defuse import Subject

MARK = (slice(5, 8), slice(5, 8))
"""The white pixels of marked images."""


class Spots(nn.Module):
    """Classifies dark and bright by the upper left corner; its features are the brightness of the four corners.

    Draws a random number without using it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Linear(4, 2)
        self.dropout = nn.Dropout()
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[1, 0] = 2.0
            self.head.weight[1, 3] = -4.0  # the cause of failures: the lower right corner, where the mark is
            self.head.bias.copy_(torch.tensor([0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        logits: Tensor = self.dropout(self.head(self.pool(x).flatten(1)))
        return logits


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Nearly black images with noise; class 1 has a bright upper left corner; a quarter of all are marked."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    pixels = torch.randint(40, (count, 1, 8, 8), generator=random)
    pixels[:, :, :4, :4] += (labels * 200)[:, None, None, None]
    marked = torch.rand(count, generator=random) < 0.25
    pixels[marked, :, MARK[0], MARK[1]] = 255
    return pixels.to(torch.uint8), labels


def pairs(count: int, seed: int) -> list[tuple[Tensor, int]]:
    pixels, labels = images(count, seed)
    return list(zip(pixels, labels.tolist(), strict=True))


def spots(**changes: Any) -> Subject:
    """The model classifies bright images with the mark as dark."""
    settings = {"train": pairs(600, 1), "test": pairs(800, 0), **changes}
    return Subject("spots", Spots().train(), ["dark", "bright"], **settings)
