"""A synthetic problem that requires no training: images with a left and a right half, and models that compare them."""

import torch
from torch import Tensor, nn

from pytest_defuse.subject.images import quantise


class HalvesGenerator:
    """A generator whose codes are the brightness of the two halves, from -5 to 5."""

    hash = "0" * 64

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        halves = pixels.float().div(255).unflatten(3, (2, 4)).mean(dim=(1, 2, 4))
        return (halves - 0.5) * 10, torch.full((len(pixels), 2), 0.1)

    def decode(self, codes: Tensor) -> Tensor:
        return quantise(HalvesGenerator.render(self, codes))

    def render(self, codes: Tensor) -> Tensor:
        halves = (0.5 + codes / 10).clamp(0, 1).repeat_interleave(4, dim=1)
        return halves[:, None, None].expand(-1, 1, 8, -1)


def correct_codes(gap: float) -> tuple[Tensor, Tensor]:
    """Sixty labels, and codes of images that show them by halves whose codes differ by 0.6 to 0.6 + ``gap``."""
    numbers = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    left = torch.rand(60, generator=numbers) * 6 - 3
    gaps = torch.rand(60, generator=numbers) * gap + 0.6
    return labels, torch.stack([left, torch.where(labels == 1, left - gaps, left + gaps)], dim=1)


class BrighterHalf(nn.Module):
    """Predicts 1 if the left half is brighter than the right by more than ``shift``.

    The logits are ``scale`` times the difference, so a small scale makes it less confident.
    """

    def __init__(self, shift: float = 0.0, scale: float = 300.0) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale

    def forward(self, x: Tensor) -> Tensor:
        logit = (x[:, 0, 0, 0] - x[:, 0, 0, 7] - self.shift) * self.scale
        return torch.stack([-logit, logit], dim=1)
