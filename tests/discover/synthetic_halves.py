"""A world in which nothing need be trained: images of a left and a right half, and models that compare them."""

import torch
from torch import Tensor, nn

from pytest_defuse.subject.images import quantise


class Halves:
    """A generator whose codes are the brightness of the two halves, from -5 to 5."""

    hash = "0" * 64

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        halves = pixels.float().div(255).unflatten(3, (2, 4)).mean(dim=(1, 2, 4))
        return (halves - 0.5) * 10, torch.full((len(pixels), 2), 0.1)

    def decode(self, codes: Tensor) -> Tensor:
        halves = (0.5 + codes / 10).clamp(0, 1).repeat_interleave(4, dim=1)
        return quantise(halves[:, None, None].expand(-1, 1, 8, -1))


class Brighter(nn.Module):
    """Says 1 where the left half is brighter than the right by more than ``shift``, surely where by much."""

    def __init__(self, shift: float = 0.0, sureness: float = 300.0) -> None:
        super().__init__()
        self.shift, self.sureness = shift, sureness

    def forward(self, x: Tensor) -> Tensor:
        excess = (x[:, 0, 0, 0] - x[:, 0, 0, 7] - self.shift) * self.sureness
        return torch.stack([-excess, excess], dim=1)
