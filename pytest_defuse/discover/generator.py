"""The image generator: anything that encodes and decodes, by default a small convolutional beta-VAE.

The papers' (Higgins et al. 2017; Defuse, appendix B) is trained on pixels alone, and what a classifier reads is
soon blurred away. The default one is trained to keep what a judge sees, never what the model under test sees:
that would hide the model's failures.
"""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.discover.perceptual_loss import FeatureMaps
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.fingerprint import fingerprint, plain_repr
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.training import Schedule, train_once
from pytest_defuse.subject.batches import BATCH, Batches
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages, content_hash, quantise

HIDDEN = 256


@dataclass(frozen=True)
class GeneratorSettings:
    """How the built-in generator is made: a beta-VAE that is trained to keep what a judge sees.

    The loss of an image, in nats, is BCE + perceptual * values * distance + beta * KL: the cross-entropy of its
    ``values`` = C * H * W pixel values, what a judge sees (:meth:`FeatureMaps.distance`), and the divergence.

    Attributes:
        latent: dimensions of the latent code; 0: 16 a colour channel, so 16 for grey and 48 for RGB images.
        beta: weight of the KL term. The papers' 4 blurs small strokes away; what the search needs first is
            that the classifier can still read the reconstructions.
        perceptual: weight of the perceptual term; 0 trains on pixels alone.
        channels, deep_channels: of the first and of every further convolution.
        grid: convolutions halve the image until its shorter side is at most this.
        hidden: fully connected layers of 256 in the encoder, and in the decoder.
        steps, batch, rate, falling: of Adam; see :class:`Schedule`.
        warmup: steps over which the KL term grows to its weight.
    """

    latent: int = 0
    beta: float = 0.5
    perceptual: float = 0.5
    channels: int = 32
    deep_channels: int = 64
    grid: int = 8
    hidden: int = 1
    steps: int = 2000
    warmup: int = 500
    batch: int = 128
    rate: float = 2e-3
    falling: bool = True

    @staticmethod
    def paper(
        images: int, *, latent: int = 10, channels: int = 32, grid: int = 4, epochs: int = 800, warmup: int = 500
    ) -> "GeneratorSettings":
        """The plain beta-VAE of Defuse's appendix B for a training set of so many images.

        MNIST has latent 10, 32 channels, 800 epochs; GTSRB (128 pixels) 15, 64, 800 and grid 8; SVHN 10, 64, 400
        and a warm-up of 5,000 steps. The appendix names no reconstruction error: here it is cross-entropy, the
        likelihood that goes with its sigmoid. (One of its two paragraphs on MNIST says beta 0.4.)
        """
        return GeneratorSettings(
            latent=latent,
            beta=4.0,
            perceptual=0.0,
            channels=channels,
            deep_channels=channels,
            grid=grid,
            hidden=2,
            steps=epochs * -(-images // 2048),
            warmup=warmup,
            batch=2048,
            rate=1e-3,
            falling=False,
        )


class BetaVAE(nn.Module):
    """Convolutions of 4 x 4 and stride 2, hidden layers of 256, and the mirror of both.

    Args:
        shape: channels, height and width of the images.
    """

    def __init__(self, shape: Sequence[int], settings: GeneratorSettings) -> None:
        super().__init__()
        channels, height, width = shape
        self.channels, self.size = channels, (height, width)
        self.latent = settings.latent or 16 * channels
        widths = [channels, settings.channels]
        while -(-min(height, width) // 2 ** (len(widths) - 1)) > settings.grid:
            widths.append(settings.deep_channels)
        stages = len(widths) - 1
        # Sizes are rounded up to what the strides divide, and the decoder's output is cropped again.
        grid = (-(-height // 2**stages), -(-width // 2**stages))
        self.padding = (0, grid[1] * 2**stages - width, 0, grid[0] * 2**stages - height)
        flat = widths[-1] * grid[0] * grid[1]
        down = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
        up = [
            layer
            for b, a in zip(widths[::-1], widths[-2::-1], strict=False)
            for layer in (nn.ReLU(), nn.ConvTranspose2d(b, a, 4, 2, 1))
        ]
        self.encoder = nn.Sequential(*down, nn.Flatten(), *_hidden(flat, settings.hidden))
        self.moments = nn.Linear(HIDDEN, 2 * self.latent)
        self.decoder = nn.Sequential(
            *_hidden(self.latent, settings.hidden),
            nn.Linear(HIDDEN, flat),
            nn.Unflatten(1, (widths[-1], *grid)),
            *up,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), float32 N x latent each, of float images in [0, 1]."""
        mean, log_variance = self.moments(self.encoder(F.pad(images, self.padding))).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 6)

    def decode(self, codes: Tensor) -> Tensor:
        """Logits of pixels, float32 N x C x H x W, of latent codes."""
        height, width = self.size
        images: Tensor = self.decoder(codes)
        return images[..., :height, :width].float()


def _hidden(inputs: int, layers: int) -> list[nn.Module]:
    return [m for i in range(layers) for m in (nn.Linear(HIDDEN if i else inputs, HIDDEN), nn.ReLU())]


class TrainedVAE:
    """A trained beta-VAE as a :class:`ImageGenerator`."""

    def __init__(self, network: BetaVAE, device: torch.device | str) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.batches = Batches(BATCH)
        state = network.state_dict()
        self.hash = content_hash(*(part for name in sorted(state) for part in (name, state[name])))

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), float32 N x d each, of uint8 pixels."""
        if not len(pixels):
            return torch.empty(0, self.network.latent), torch.empty(0, self.network.latent)
        moments = self.batches(lambda some: torch.stack(self.network.encode(some.to(self.device) / 255), dim=1), pixels)
        mean, log_variance = moments.cpu().unbind(dim=1)
        return mean.contiguous(), (log_variance / 2).exp()

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """uint8 pixels of latent codes, float32 N x d; they stay on the generator's device."""
        if not len(codes):
            return torch.empty(0, self.network.channels, *self.network.size, dtype=torch.uint8, device=self.device)
        return self.batches(lambda some: quantise(self.render(some)), codes).contiguous()

    def render(self, codes: Tensor) -> Tensor:
        """Float images in [0, 1] of latent codes, float32 N x d; differentiable."""
        return self.network.decode(codes.to(self.device)).sigmoid()


def trained_generator(
    images: LabelledImages,
    settings: GeneratorSettings,
    *,
    judge: Classifier | None = None,
    seed: int,
    device: torch.device | str,
    cache: Path,
    progress: Progress,
) -> TrainedVAE:
    """The generator of these images: from the cache, or trained now and cached.

    The cache's key is the content of the images, the judge, the settings and the seed, so equal input never
    trains twice; an interrupted training goes on where it stopped (:func:`train_once`).

    Args:
        judge: whose view the reconstructions must keep; never the model under test. Without one the
            perceptual term is left out.

    Raises:
        DefuseError: the cache cannot be written to.
    """
    if judge is None:
        settings = replace(settings, perceptual=0.0)
    seen_by = (judge.hash, plain_repr(judge.module)) if judge is not None and settings.perceptual else None
    key = fingerprint("generator", version=2, pixels=images.pixels, settings=settings, seed=seed, judge=seen_by)
    with seeded(seed):
        network = BetaVAE(images.pixels.shape[1:], settings).to(device).to(memory_format=torch.channels_last)
    maps = FeatureMaps(judge, images.pixels) if judge is not None and settings.perceptual else None
    train_once(
        network,
        partial(_loss, network, maps, images.pixels, settings, torch.device(device)),
        Schedule(settings.steps, settings.rate, falling=settings.falling),
        cache / f"generator-{key[:16]}.safetensors",
        seed=seed,
        progress=progress,
        title="training the generator",
    )
    return TrainedVAE(network, device)


def _loss(
    network: BetaVAE,
    maps: FeatureMaps | None,
    pixels: Tensor,
    settings: GeneratorSettings,
    device: torch.device,
    step: int,
) -> Tensor:
    """The loss of one batch, in nats an image."""
    batch = pixels[torch.randint(len(pixels), (settings.batch,))].to(device) / 255
    with torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bfloat16(device)):
        mean, log_variance = network.encode(batch.contiguous(memory_format=torch.channels_last))
        logits = network.decode(mean + torch.randn_like(mean) * (log_variance / 2).exp())
        error = F.binary_cross_entropy_with_logits(logits, batch, reduction="sum") / len(batch)
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2 / len(batch)
        loss = error + settings.beta * min(1.0, (step + 1) / settings.warmup) * divergence
        if maps is not None:
            loss = loss + settings.perceptual * batch[0].numel() * maps.distance(batch, logits.sigmoid())
    return loss


def __getattr__(name: str) -> Any:
    if name == "Generator":  # the name of earlier versions
        warnings.warn("Generator is now pytest_defuse.ImageGenerator.", DeprecationWarning, stacklevel=2)
        return ImageGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
