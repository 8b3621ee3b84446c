"""Judges: reference classifiers that give a second opinion on what a generated image shows.

Of 4,638 draws that a model got "wrong" on MNIST, three judges agreed with it on 61%: the decoder had turned the digit
into another one. So a draw counts as a failure only if all judges agree on a label, are confident, and the model
predicts another class. A person decides in the end, because judges can be wrong together with the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.settings import Count, NonNegative, Positive, Settings, setting
from pytest_defuse.runtime.training import Schedule, train_once
from pytest_defuse.subject.affine import transformed
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from pytest_defuse.subject.images import LabelledImages


@dataclass(frozen=True)
class JudgeShape:
    """A small convolutional network."""

    width: int  # channels after the first convolution; they double with each halving of the image, up to four times
    kernel_size: int  # of the first convolution, which has stride 2; odd
    depth: int  # number of 3 x 3 convolutions before each further halving


class JudgeSettings(Settings):
    """Training of the built-in judges: one network per shape, each with its own seed.

    The number of optimizer steps is the number of classes times ``steps_per_class``, but at least ``min_steps``: 1,200
    for 10 classes, 2,580 for 43.
    """

    shapes: tuple[JudgeShape, ...] = setting(
        (JudgeShape(16, 5, 1), JudgeShape(32, 3, 1), JudgeShape(16, 3, 2)),
        "Shapes of the networks.",
        "our choice: three that differ, so that their errors differ",
    )
    steps_per_class: Count = setting(60, "Optimizer steps for each class.")
    min_steps: Count = setting(
        1200,
        "Minimum number of optimizer steps.",
        "benchmarks/generator.py: on Fashion-MNIST, judges trained for 1,200 steps have 87.2-88.1% test accuracy, for "
        "600 steps 85.0-85.8%",
    )
    batch_size: Count = setting(128, "Images in one step.")
    learning_rate: Positive = setting(3e-3, "The largest learning rate of AdamW.")
    weight_decay: NonNegative = setting(1e-2, "Weight decay of AdamW.", "PyTorch's default")


class Judges:
    """A panel of classifiers, with the minimum softmax probability of a confident judge, in [0, 1]."""

    def __init__(self, panel: Sequence[Classifier], confidence: float = 0.9) -> None:
        self.panel = panel
        self.confidence = confidence

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, over the judges and the confidence."""
        confidence = round(self.confidence, 4)  # a calibrated one is a probability, whose last bits vary
        return fingerprint("judges", confidence=confidence, panel=[judge.fingerprint for judge in self.panel])

    def verdicts(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Labels of uint8 pixels N x C x H x W by the first judge, int64 N, and the panel's confidence, float32 N.

        The panel's confidence is the smallest softmax probability of its judges; -1 where they disagree.
        """
        probabilities = torch.stack([judge.logits(pixels).softmax(dim=1) for judge in self.panel])
        confidences, classes = probabilities.max(dim=2)
        return classes[0], confidences.min(dim=0).values.where((classes == classes[0]).all(dim=0), -1.0)

    def labels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`verdicts`, with whether the panel is confident, bool N: at least ``confidence``."""
        labels, confidences = self.verdicts(pixels)
        return labels, confidences >= self.confidence

    def contradict(self, pixels: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`labels`, but the panel must be confident *and* differ from ``predictions``, int64 N.

        Each judge evaluates only the images on which all judges before it contradicted; other images have no valid
        label. The third tensor, int64 N, is the number of judges that evaluated each image.
        """
        labels, remaining = predictions.clone(), torch.arange(len(pixels))
        evaluations = torch.zeros_like(predictions)
        for position, judge in enumerate(self.panel):
            evaluations[remaining] += 1
            confidences, classes = judge.logits(pixels[remaining]).softmax(dim=1).max(dim=1)
            against = (confidences >= self.confidence) & (classes != predictions[remaining])
            if position:
                against &= classes == labels[remaining]
            remaining = remaining[against]
            labels[remaining] = classes[against]
        contradicted = torch.zeros(len(pixels), dtype=torch.bool)
        contradicted[remaining] = True
        return labels, contradicted, evaluations


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
    """The built-in judges, trained on these images with augmentation, or loaded from the cache.

    Hold images back for :func:`~pytest_defuse.discover.judge_calibration.calibrate`.

    Raises:
        DefuseError: the cache cannot be written to.
    """
    key = fingerprint("judge", version=2, data=images.hash, classes=class_count, settings=settings, seed=seed)
    steps = max(settings.min_steps, settings.steps_per_class * class_count)
    panel, image_shape = [], images.pixels.shape[1:]
    for position, shape in enumerate(settings.shapes, start=1):
        name = f"judge {position}"
        with seeded(seed + position):
            network = judge_network(image_shape, class_count, shape)
        network.to(device).to(memory_format=torch.channels_last)
        train_once(
            network,
            partial(_loss, network, images, settings.batch_size, torch.device(device)),
            Schedule(steps, settings.learning_rate, settings.weight_decay),
            cache / f"judge-{key[:16]}-{position}.safetensors",
            seed=seed + position,
            progress=progress,
            title=f"training {name}",
        )
        panel.append(Classifier(network, class_count, image_shape=image_shape, device=device, name=name))
    return panel


def judge_network(image_shape: Sequence[int], class_count: int, shape: JudgeShape) -> nn.Module:
    """Convolutions with batch norm that halve the image until its shorter side is at most 4 pixels; a linear layer."""
    channels, height, width = image_shape
    side, outputs = -(-min(height, width) // 2), shape.width
    layers = convolution(channels, outputs, shape.kernel_size, stride=2)
    while side > 4:
        inputs, outputs = outputs, min(2 * outputs, 4 * shape.width)
        for position in range(shape.depth):
            layers += convolution(outputs if position else inputs, outputs, 3)
        layers.append(nn.MaxPool2d(2))
        side //= 2
    layers += convolution(outputs, outputs, 3)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(outputs, class_count))


def convolution(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution, padded to keep the size apart from its stride, with batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def augment(images: Tensor) -> Tensor:
    """Randomly rotate, scale, shear, shift and change the contrast of each image, all by a little.

    Rotation is up to 15 degrees, scale and shear up to 15%, shifts up to 8% of the side, contrast up to 30%: our
    choice. Images, float N x C x H x W in [0, 1], are never flipped: a flipped sign or digit is another one. The edge
    is repeated where an image moves away from it.
    """
    count = len(images)
    angle, scale, shear, x, y, contrast = (torch.rand(6, count, device=images.device) * 2 - 1).unbind()
    # 0.26 radians are 15 degrees.
    moved = transformed(images, angle * 0.26, 1 + scale * 0.15, shear * 0.15, x * 0.08, y * 0.08)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (1 + 0.3 * contrast.view(-1, 1, 1, 1)) * (moved - mean)).clamp(0, 1)


def _loss(network: nn.Module, images: LabelledImages, batch_size: int, device: torch.device, step: int) -> Tensor:
    indices = torch.randint(len(images), (batch_size,))
    inputs = augment(images.pixels[indices].to(device) / 255).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bfloat16(device)):
        return F.cross_entropy(network(inputs).float(), images.labels[indices].to(device))
