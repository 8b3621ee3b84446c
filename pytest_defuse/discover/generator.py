"""The built-in image generator: a small convolutional beta-VAE (Higgins et al. 2017).

The papers' beta-VAE (Defuse, appendix B) is trained only on pixels, and blurs details that a classifier uses. The
default one is also trained to keep what a judge sees, a reference classifier that gives a second opinion. It is never
trained to keep what the model under test sees, which would hide the model's failures.
"""

import itertools
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.discover.perceptual_loss import FeatureMaps
from pytest_defuse.runtime.cache import UnusableError, read_tensors
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.settings import Count, NonNegative, Positive, Settings, setting
from pytest_defuse.runtime.training import Schedule, train_once
from pytest_defuse.subject.batches import BatchRunner
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from pytest_defuse.subject.identity import weights_hash
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages, quantise
from pytest_defuse.subject.preprocessing import last_line

HIDDEN = 256
"""Width of the fully connected layers: Defuse, appendix B."""
LATENT_DIMS_PER_CHANNEL = 16
"""Default number of latent dimensions per colour channel: all are active on MNIST and on GTSRB, measured with
benchmarks/generator.py."""
LOG_VARIANCES = (-12.0, 6.0)
"""Range of log-variances, which keeps their exponential finite in training; our choice."""
PAPER_BATCH_SIZE = 2048
"""Defuse, appendix B."""


class GeneratorSettings(Settings):
    """Architecture and training of the built-in generator; benchmarks/generator.py measures our choices together.

    The loss per image, in nats, is BCE + perceptual_weight * values * distance + beta * KL: the cross-entropy of its
    ``values`` = C * H * W pixel values, the perceptual distance (:meth:`FeatureMaps.distance`), and the divergence of
    q(z|x) from N(0, I).
    """

    latent_dim: int = setting(
        0, "Dimensions of the latent code; 0: 16 for grey images, 48 for RGB.", "benchmarks/generator.py", ge=0
    )
    beta: Positive = setting(0.5, "Weight of the KL term.", "our choice: the papers' 4 blurs small strokes away")
    perceptual_weight: NonNegative = setting(0.5, "Weight of the perceptual distance; 0: train on pixels only.")
    channels: Count = setting(32, "Channels of the first convolution.", "Defuse, appendix B.2")
    deep_channels: Count = setting(64, "Channels of every further convolution.")
    max_grid: Count = setting(8, "Convolutions halve the image until its shorter side is at most this.")
    hidden_layers: Count = setting(1, "Fully connected layers in the encoder, and in the decoder.")
    steps: Count = setting(2000, "Optimizer steps.", "benchmarks/generator.py, on MNIST")
    warmup: Count = setting(500, "Steps over which the KL term grows to its weight.", "Defuse, appendix B.2")
    batch_size: Count = setting(128, "Images in one step.")
    learning_rate: Positive = setting(2e-3, "The largest learning rate of AdamW.")
    falling: bool = setting(True, "Whether the learning rate warms up and falls; else it is constant.")

    @staticmethod
    def paper(
        images: int,
        *,
        latent_dim: int = 10,
        channels: int = 32,
        max_grid: int = 4,
        epochs: int = 800,
        warmup: int = 500,
    ) -> "GeneratorSettings":
        """The beta-VAE of Defuse's appendix B for a training set of ``images`` images; the defaults are MNIST's.

        GTSRB (128 pixels) has ``latent_dim=15, channels=64, max_grid=8``, SVHN ``channels=64, epochs=400,
        warmup=5000``. The appendix names no reconstruction error; here it is cross-entropy, the likelihood that matches
        its sigmoid. One of its two paragraphs on MNIST says beta = 0.4, the other 4.
        """
        return GeneratorSettings(
            latent_dim=latent_dim,
            beta=4.0,
            perceptual_weight=0.0,
            channels=channels,
            deep_channels=channels,
            max_grid=max_grid,
            hidden_layers=2,
            steps=epochs * -(-images // PAPER_BATCH_SIZE),
            warmup=warmup,
            batch_size=PAPER_BATCH_SIZE,
            learning_rate=1e-3,
            falling=False,
        )


class BetaVAE(nn.Module):
    """Encoder of 4 x 4 convolutions with stride 2 and fully connected layers; the decoder mirrors it."""

    def __init__(self, shape: Sequence[int], settings: GeneratorSettings) -> None:
        super().__init__()
        channels, height, width = shape
        self.channels, self.size = channels, (height, width)
        self.latent_dim = settings.latent_dim or LATENT_DIMS_PER_CHANNEL * channels
        widths = [channels, settings.channels]
        while -(-min(height, width) // 2 ** (len(widths) - 1)) > settings.max_grid:
            widths.append(settings.deep_channels)
        stages = len(widths) - 1
        # Sizes are padded to a multiple of the strides, and the decoder's output is cropped.
        grid = (-(-height // 2**stages), -(-width // 2**stages))
        self.padding = (0, grid[1] * 2**stages - width, 0, grid[0] * 2**stages - height)
        flat = widths[-1] * grid[0] * grid[1]
        down = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
        pairs = itertools.pairwise(widths[::-1])
        up = [layer for b, a in pairs for layer in (nn.ReLU(), nn.ConvTranspose2d(b, a, 4, 2, 1))]
        self.encoder = nn.Sequential(*down, nn.Flatten(), *_hidden(flat, settings.hidden_layers))
        self.moments = nn.Linear(HIDDEN, 2 * self.latent_dim)
        self.decoder = nn.Sequential(
            *_hidden(self.latent_dim, settings.hidden_layers),
            nn.Linear(HIDDEN, flat),
            nn.Unflatten(1, (widths[-1], *grid)),
            *up,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), float32 N x d each, for float images N x C x H x W in [0, 1]."""
        mean, log_variance = self.moments(self.encoder(F.pad(images, self.padding))).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def decode(self, codes: Tensor) -> Tensor:
        """Logits of the pixels, float32 N x C x H x W, for latent codes, float32 N x d."""
        height, width = self.size
        images: Tensor = self.decoder(codes)
        return images[..., :height, :width].float()


def _hidden(inputs: int, layers: int) -> list[nn.Module]:
    return [m for i in range(layers) for m in (nn.Linear(HIDDEN if i else inputs, HIDDEN), nn.ReLU())]


class TrainedVAE:
    """A trained beta-VAE as an :class:`~pytest_defuse.subject.image_generator.ImageGenerator`."""

    def __init__(self, network: BetaVAE, device: torch.device | str) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.batches = BatchRunner()
        self.hash = weights_hash(network)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), float32 N x d each, for uint8 pixels N x C x H x W."""
        if not len(pixels):
            return torch.empty(0, self.network.latent_dim), torch.empty(0, self.network.latent_dim)
        moments = self.batches(lambda x: torch.stack(self.network.encode(x.to(self.device) / 255), dim=1), pixels)
        mean, log_variance = moments.cpu().unbind(dim=1)
        return mean.contiguous(), (log_variance / 2).exp()

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """uint8 pixels N x C x H x W on the generator's device, for latent codes, float32 N x d."""
        if not len(codes):
            return torch.empty(0, self.network.channels, *self.network.size, dtype=torch.uint8, device=self.device)
        return self.batches(lambda z: quantise(self.render(z)), codes).contiguous()

    def render(self, codes: Tensor) -> Tensor:
        """Float images in [0, 1], N x C x H x W, for latent codes, float32 N x d; differentiable."""
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
    """The generator of these images, trained now or loaded from the cache.

    Its key in the cache depends on the images, the judge, the settings and the seed.

    Args:
        judge: the reconstructions keep what this classifier sees; never the model under test. Without a judge there is
            no perceptual loss.

    Raises:
        DefuseError: the cache cannot be written to.
    """
    if judge is None:
        settings = settings.replace(perceptual_weight=0.0)
    elif not settings.perceptual_weight:
        judge = None
    identity = judge.identity if judge else None
    parts = {"settings": settings, "seed": seed, "judge": identity and identity.fingerprint}
    key = fingerprint("generator", version=3, pixels=images.pixels, **parts)
    with seeded(seed):
        network = BetaVAE(images.pixels.shape[1:], settings).to(device).to(memory_format=torch.channels_last)
    maps = FeatureMaps(judge, images.pixels) if judge else None
    train_once(
        network,
        partial(_loss, network, maps, images.pixels, settings, torch.device(device)),
        Schedule(settings.steps, settings.learning_rate, falling=settings.falling),
        cache / f"generator-{key[:16]}.safetensors",
        seed=seed,
        progress=progress,
        title="training the generator",
        outputs={"the judge": identity.outputs} if identity else {},
    )
    return TrainedVAE(network, device)


def cached_generator(cache: Path, sha256: str, shape: Sequence[int], latent_dim: int) -> TrainedVAE:
    """Load the built-in generator that an earlier discovery trained, by its ``hash``, which scenarios record.

    Args:
        shape: channels, height and width of its images.

    Raises:
        DefuseError: the cache does not contain the generator.
    """
    kinds = (GeneratorSettings(latent_dim=latent_dim), GeneratorSettings.paper(1, latent_dim=latent_dim))
    for file, settings in itertools.product(sorted(cache.glob("generator-*.safetensors")), kinds):
        with suppress(FileNotFoundError, UnusableError, RuntimeError):  # damaged, or another shape
            network = BetaVAE(shape, settings)
            network.load_state_dict(read_tensors(file))
            if (generator := TrainedVAE(network, "cpu")).hash == sha256:
                return generator
    raise DefuseError(
        f"The generator {sha256[:12]} is not in {cache}: run pytest --defuse-discover on the machine that found the "
        "scenario, with the same seed and data, or copy generator-*.safetensors from its cache."
    )


def _loss(
    network: BetaVAE,
    maps: FeatureMaps | None,
    pixels: Tensor,
    settings: GeneratorSettings,
    device: torch.device,
    step: int,
) -> Tensor:
    """The loss of one batch, in nats per image."""
    batch = pixels[torch.randint(len(pixels), (settings.batch_size,))].to(device) / 255
    with torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bfloat16(device)):
        mean, log_variance = network.encode(batch.contiguous(memory_format=torch.channels_last))
        logits = network.decode(mean + torch.randn_like(mean) * (log_variance / 2).exp())
        error = F.binary_cross_entropy_with_logits(logits, batch, reduction="sum") / len(batch)
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2 / len(batch)
        loss = error + settings.beta * min(1.0, (step + 1) / settings.warmup) * divergence
        if maps is not None:
            loss = loss + settings.perceptual_weight * batch[0].numel() * maps.distance(batch, logits.sigmoid())
    return loss


def check_generator(generator: ImageGenerator, pixels: Tensor) -> None:
    """Raise DefuseError if the shape or type of a generator's output is unusable, for uint8 pixels N x C x H x W."""
    try:
        mean, std = generator.encode(pixels)
        decoded = generator.decode(mean)
        assert isinstance(generator.hash, str), f"its hash is {generator.hash!r}"
        assert all(isinstance(values, Tensor) for values in (mean, std, decoded)), "it returned no tensors"
    except Exception as error:  # the user's generator
        raise DefuseError(
            f"Subject(generator=...) fails on {len(pixels)} training images ({last_line(error)}): give an object with "
            "hash, encode and decode, as pytest_defuse.ImageGenerator describes."
        ) from error
    if mean.ndim != 2 or len(mean) != len(pixels) or std.shape != mean.shape or not mean.is_floating_point():
        raise DefuseError(
            f"The generator encodes {len(pixels)} images as means of shape {tuple(mean.shape)}, {mean.dtype}, and "
            f"standard deviations of shape {tuple(std.shape)}: both must be float, {len(pixels)} x d."
        )
    if decoded.shape != pixels.shape or decoded.dtype != torch.uint8:
        raise DefuseError(
            f"The generator decodes to {decoded.dtype} of shape {tuple(decoded.shape)}: it must return uint8 pixels of "
            f"shape {tuple(pixels.shape)}, like the training images."
        )


def __getattr__(name: str) -> Any:
    if name == "Generator":  # the name before ImageGenerator, importable for one release
        warnings.warn("Generator is now pytest_defuse.ImageGenerator.", DeprecationWarning, stacklevel=2)
        return ImageGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
