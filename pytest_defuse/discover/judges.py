"""Second opinions: small networks that say what an image shows, whoever generated it.

Most generated images on which a model "fails" are the generator's doing: the decoder turned the
digit into another one. So an image counts as a failure only when independent judges agree on what
it shows, are confident, and differ from the model. What they cannot see is what they get wrong
together with the model; a person has the last word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.fingerprint import fingerprint, plain_repr
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.training import Schedule, train_once
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from pytest_defuse.subject.images import LabelledImages


@dataclass(frozen=True)
class JudgeShape:
    """A small convolutional network.

    Attributes:
        width: channels after the first convolution; they double with each halving, up to four times as many.
        kernel: of the first convolution, which has stride 2; odd.
        depth: convolutions of 3 x 3 before each further halving.
    """

    width: int
    kernel: int
    depth: int


@dataclass(frozen=True)
class JudgeSettings:
    """How the built-in judges are made: one network a shape, each from its own seed.

    Attributes:
        shapes: of the networks.
        steps_per_class, least_steps: optimiser steps are the first times the number of classes, or the second
            where that is more: 1,200 for 10 classes, 2,580 for 43.
        batch, rate: of AdamW; see :class:`Schedule`.
    """

    shapes: tuple[JudgeShape, ...] = (JudgeShape(16, 5, 1), JudgeShape(32, 3, 1), JudgeShape(16, 3, 2))
    steps_per_class: int = 60
    least_steps: int = 1200
    batch: int = 128
    rate: float = 3e-3


class Judges:
    """A panel of classifiers.

    Args:
        confidence: the least softmax probability of a sure judge; :func:`~.judge_calibration.calibrated` measures it.
    """

    def __init__(self, panel: Sequence[Classifier], confidence: float = 0.9) -> None:
        self.panel = panel
        self.confidence = confidence

    @property
    def hash(self) -> str:
        """sha256 over the judges and the confidence, in hex."""
        panel = [(judge.hash, plain_repr(judge.module)) for judge in self.panel]
        return fingerprint("judges", confidence=self.confidence, panel=panel)

    def verdicts(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the judges see: class indices, int64 N, and whether all are sure of it, bool N."""
        probabilities = torch.stack([judge.logits(pixels).softmax(dim=1) for judge in self.panel])
        confidence, classes = probabilities.max(dim=2)
        agreed = (classes == classes[0]).all(dim=0)
        return classes[0], agreed & (confidence >= self.confidence).all(dim=0)

    def contradict(self, pixels: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`verdicts`, and the second value says that the judges are sure *and* differ from ``predictions``.

        A judge is asked only about the images on which all judges before it contradicted.
        """
        classes, open_cases = predictions.clone(), torch.arange(len(pixels))
        for position, judge in enumerate(self.panel):
            confidence, seen = judge.logits(pixels[open_cases]).softmax(dim=1).max(dim=1)
            against = (confidence >= self.confidence) & (seen != predictions[open_cases])
            if position:
                against &= seen == classes[open_cases]
            open_cases = open_cases[against]
            classes[open_cases] = seen[against]
        contradicted = torch.zeros(len(pixels), dtype=torch.bool)
        contradicted[open_cases] = True
        return classes, contradicted


def trained_judges(
    images: LabelledImages,
    class_count: int,
    settings: JudgeSettings,
    *,
    seed: int,
    device: torch.device | str,
    cache: Path,
    progress: Progress,
) -> list[Classifier]:
    """The built-in judges of these images: from the cache, or trained now with augmentation and cached.

    Keep some images from them for :func:`~.judge_calibration.calibrated`. An interrupted training goes on where it
    stopped (:func:`train_once`).

    Raises:
        DefuseError: the cache cannot be written to.
    """
    key = fingerprint("judge", version=2, data=images.hash, settings=settings, seed=seed)
    steps = max(settings.least_steps, settings.steps_per_class * class_count)
    panel = []
    for position, shape in enumerate(settings.shapes, start=1):
        with seeded(seed + position):
            network = judge_network(images.pixels.shape[1:], class_count, shape)
        network.to(device).to(memory_format=torch.channels_last)
        train_once(
            network,
            partial(_loss, network, images, settings.batch, torch.device(device)),
            Schedule(steps, settings.rate, weight_decay=1e-2),
            cache / f"judge-{key[:16]}-{position}.safetensors",
            seed=seed + position,
            progress=progress,
            title=f"training judge {position}",
        )
        panel.append(Classifier(network, class_count, device=device, name=f"judge {position}"))
    return panel


def judge_network(image_shape: Sequence[int], class_count: int, shape: JudgeShape) -> nn.Module:
    """Convolutions with batch norm that halve the image until its shorter side is at most 4; one linear layer.

    Args:
        image_shape: channels, height and width.
    """
    channels, height, width = image_shape
    side, outputs = -(-min(height, width) // 2), shape.width
    layers = _convolution(channels, outputs, shape.kernel, stride=2)
    while side > 4:
        inputs, outputs = outputs, min(2 * outputs, 4 * shape.width)
        for position in range(shape.depth):
            layers += _convolution(outputs if position else inputs, outputs, 3)
        layers.append(nn.MaxPool2d(2))
        side //= 2
    layers += _convolution(outputs, outputs, 3)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(outputs, class_count))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def augment(images: Tensor) -> Tensor:
    """Each image turned by up to 15 degrees, scaled, sheared, moved and changed in contrast by a little.

    Never mirrored: a mirrored sign or digit is another one. Scale and shear change by up to 15%, places by
    up to 8% of the side, contrast by up to 30%; what moves in from outside repeats the edge.

    float N x C x H x W in [0, 1], in and out.
    """
    count = len(images)
    angle, scale, shear, x, y, contrast = (torch.rand(6, count, device=images.device) * 2 - 1).unbind()
    angle, scale, shear = angle * 0.26, 1 + scale * 0.15, shear * 0.15
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, shear - sin, x * 0.16, sin, cos, y * 0.16], dim=1).view(count, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    middle = moved.mean(dim=(1, 2, 3), keepdim=True)
    return (middle + (1 + 0.3 * contrast.view(-1, 1, 1, 1)) * (moved - middle)).clamp(0, 1)


def _loss(network: nn.Module, images: LabelledImages, batch: int, device: torch.device, step: int) -> Tensor:
    chosen = torch.randint(len(images), (batch,))
    inputs = augment(images.pixels[chosen].to(device) / 255).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bfloat16(device)):
        return F.cross_entropy(network(inputs).float(), images.labels[chosen].to(device))
