"""The image generator: a small convolutional beta-VAE (Higgins et al. 2017; Defuse, appendix A)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.cache import cached_weights
from pytest_defuse.determinism import seeded
from pytest_defuse.images import LabelledImages, content_hash, quantise
from pytest_defuse.progress import Progress

BATCH = 256


class Generator(Protocol):
    """What the search needs of a generator."""

    hash: str

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), float32 N x d each, of uint8 pixels N x C x H x W."""

    def decode(self, codes: Tensor) -> Tensor:
        """uint8 pixels N x C x H x W of latent codes, float32 N x d: what a PNG of the image would hold."""


@dataclass(frozen=True)
class GeneratorSettings:
    """How the built-in generator is made.

    Attributes:
        latent: dimensions of the latent code.
        beta: weight of the KL term. The papers' 4 blurs small strokes away; what the search needs first is
            that the classifier can still read the reconstructions.
        steps: optimiser steps, of Adam at a rate that falls from ``rate`` to 0 along a cosine.
        warmup: steps over which the KL term grows to its weight.
    """

    latent: int = 16
    beta: float = 0.5
    channels: int = 32
    steps: int = 3000
    warmup: int = 500
    batch: int = 128
    rate: float = 1e-3


class BetaVAE(nn.Module):
    """Convolutions of 4 x 4 and stride 2, a hidden layer of 256, and the mirror of both.

    Args:
        shape: channels, height and width of the images.
    """

    def __init__(self, shape: Sequence[int], settings: GeneratorSettings) -> None:
        super().__init__()
        channels, height, width = shape
        self.size = (height, width)
        widths = [channels, settings.channels, 2 * settings.channels]
        while min(height, width) // 2 ** (len(widths) - 1) > 8:
            widths.append(2 * settings.channels)
        stages = len(widths) - 1
        # Sizes are rounded up to what the strides divide, and the decoder's output is cropped again.
        self.grid = (-(-height // 2**stages), -(-width // 2**stages))
        self.padding = (0, self.grid[1] * 2**stages - width, 0, self.grid[0] * 2**stages - height)
        flat = widths[-1] * self.grid[0] * self.grid[1]
        down = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
        up = [
            layer
            for b, a in zip(widths[::-1], widths[-2::-1], strict=False)
            for layer in (nn.ReLU(), nn.ConvTranspose2d(b, a, 4, 2, 1))
        ]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, 256), nn.ReLU())
        self.moments = nn.Linear(256, 2 * settings.latent)
        self.decoder = nn.Sequential(
            nn.Linear(settings.latent, 256),
            nn.ReLU(),
            nn.Linear(256, flat),
            nn.Unflatten(1, (widths[-1], *self.grid)),
            *up,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), N x latent each, of float images in [0, 1]."""
        mean, log_variance = self.moments(self.encoder(F.pad(images, self.padding))).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 6)

    def decode(self, codes: Tensor) -> Tensor:
        """Logits of pixels, N x C x H x W, of latent codes."""
        height, width = self.size
        images: Tensor = self.decoder(codes)
        return images[..., :height, :width]


class TrainedVAE:
    """A trained beta-VAE as a :class:`Generator`."""

    def __init__(self, network: BetaVAE, device: torch.device | str) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        state = network.state_dict()
        self.hash = content_hash(*(part for name in sorted(state) for part in (name, state[name])))

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), float32 N x d each, of uint8 pixels."""
        moments = [self.network.encode(chunk.to(self.device).float() / 255) for chunk in pixels.split(BATCH)]
        mean, log_variance = (torch.cat(part).cpu() for part in zip(*moments, strict=True))
        return mean, (log_variance / 2).exp()

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """uint8 pixels of latent codes, float32 N x d."""
        chunks = [quantise(self.network.decode(chunk.to(self.device)).sigmoid()) for chunk in codes.split(BATCH)]
        return torch.cat(chunks).cpu()


def trained_generator(
    images: LabelledImages,
    settings: GeneratorSettings,
    *,
    seed: int,
    device: torch.device | str,
    cache: Path,
    progress: Progress,
) -> TrainedVAE:
    """The generator of these images: from the cache, or trained now and cached.

    The cache's key is the content of the images, the settings and the seed, so equal input never
    trains twice.
    """
    key = content_hash("beta-vae 1", images.pixels, repr(settings), str(seed))
    with seeded(seed):
        network = BetaVAE(images.pixels.shape[1:], settings)
        cached_weights(
            network,
            cache / f"generator-{key[:16]}.safetensors",
            lambda: _train(network, images.pixels, settings, device, progress),
        )
    return TrainedVAE(network, device)


def _train(
    network: BetaVAE,
    pixels: Tensor,
    settings: GeneratorSettings,
    device: torch.device | str,
    progress: Progress,
) -> None:
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    with progress.task("training the generator", settings.steps) as advance:
        for step in range(settings.steps):
            batch = pixels[torch.randint(len(pixels), (settings.batch,))].to(device).float() / 255
            mean, log_variance = network.encode(batch)
            codes = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            error = F.binary_cross_entropy_with_logits(network.decode(codes), batch, reduction="sum") / len(batch)
            divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2 / len(batch)
            loss = error + settings.beta * min(1.0, (step + 1) / settings.warmup) * divergence
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance(1, f"loss {loss.item():.1f}")
