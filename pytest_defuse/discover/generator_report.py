"""What a generator keeps of the images: measured for any generator, before its draws are believed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages

SAMPLE = 5000
"""At most so many images of a set are rebuilt and read, evenly spaced."""
ACTIVE = 0.01
"""A latent dimension is active when its mean varies by more than this (Burda et al. 2016)."""


@dataclass(frozen=True)
class Reading:
    """A classifier's accuracy on images and on their reconstructions."""

    images: float
    reconstructions: float


@dataclass(frozen=True)
class GeneratorReport:
    """What a generator keeps.

    Attributes:
        latent, active: dimensions of the code, and those of them that are in use.
        kl: mean KL divergence of q(z|x) from N(0, I) on the training images, in nats.
        model_training, model_held_out: what the model under test still reads.
        judge_training, judge_held_out: the same for a judge that had no part in the training; None without one.
    """

    latent: int
    active: int
    kl: float
    model_training: Reading
    model_held_out: Reading
    judge_training: Reading | None = None
    judge_held_out: Reading | None = None


def generator_report(
    generator: ImageGenerator,
    model: Classifier,
    training: LabelledImages,
    held_out: LabelledImages,
    *,
    judge: Classifier | None = None,
) -> GeneratorReport:
    """Measure a generator on at most 5,000 training and 5,000 held-out images.

    Args:
        judge: one that had no part in the generator's training.

    Raises:
        DefuseError: the generator does not fit the images (:func:`check_generator`).
    """
    training, held_out = _sample(training), _sample(held_out)
    check_generator(generator, training.pixels[:2])
    mean, deviation = generator.encode(training.pixels)
    variance = deviation.double() ** 2
    divergence = (mean.double() ** 2 + variance - 1 - variance.clamp_min(1e-30).log()).sum(dim=1) / 2
    rebuilt = generator.decode(mean)
    rebuilt_held_out = generator.decode(generator.encode(held_out.pixels)[0])
    return GeneratorReport(
        latent=mean.shape[1],
        active=int((mean.var(dim=0, correction=0) > ACTIVE).sum()),
        kl=divergence.mean().item(),
        model_training=_reading(model, training, rebuilt),
        model_held_out=_reading(model, held_out, rebuilt_held_out),
        judge_training=None if judge is None else _reading(judge, training, rebuilt),
        judge_held_out=None if judge is None else _reading(judge, held_out, rebuilt_held_out),
    )


def check_generator(generator: ImageGenerator, pixels: Tensor) -> None:
    """Refuse a generator that does not take these pixels apart and put them together again.

    Args:
        pixels: uint8 N x C x H x W, a few images.

    Raises:
        DefuseError: its codes or its images have another shape or type than the protocol says.
    """
    mean, deviation = generator.encode(pixels)
    if mean.ndim != 2 or len(mean) != len(pixels) or deviation.shape != mean.shape or not mean.is_floating_point():
        raise DefuseError(
            f"The generator encodes {len(pixels)} images as means of shape {tuple(mean.shape)} and standard deviations "
            f"of shape {tuple(deviation.shape)}: both must be float, {len(pixels)} x d."
        )
    decoded = generator.decode(mean)
    if decoded.shape != pixels.shape or decoded.dtype != torch.uint8:
        raise DefuseError(
            f"The generator decodes to {decoded.dtype} of shape {tuple(decoded.shape)}: it must give uint8 pixels of "
            f"shape {tuple(pixels.shape)}, like the training images."
        )


def _sample(images: LabelledImages) -> LabelledImages:
    return images[:: -(-len(images) // SAMPLE)]


def _reading(classifier: Classifier, images: LabelledImages, rebuilt: Tensor) -> Reading:
    def accuracy(pixels: Tensor) -> float:
        return (classifier.predict(pixels) == images.labels).double().mean().item()

    return Reading(accuracy(images.pixels), accuracy(rebuilt))
