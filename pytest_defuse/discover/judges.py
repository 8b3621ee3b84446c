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

from pytest_defuse.cache import cached_weights
from pytest_defuse.classifier import Classifier
from pytest_defuse.determinism import seeded
from pytest_defuse.images import LabelledImages, content_hash
from pytest_defuse.progress import Progress


@dataclass(frozen=True)
class JudgeSettings:
    """How the built-in judges are made: one network a width, each from its own seed."""

    widths: tuple[int, ...] = (16, 24, 32)
    steps: int = 600
    batch: int = 128
    rate: float = 3e-3


class Judges:
    """A panel of classifiers; ``confidence`` is the least softmax probability of a sure judge."""

    def __init__(self, panel: Sequence[Classifier], confidence: float = 0.9) -> None:
        self.panel = panel
        self.confidence = confidence

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
    """The built-in judges of these images: from the cache, or trained now with augmentation and cached."""
    key = content_hash("judges 1", images.pixels, images.labels, repr(settings), str(seed))
    panel = []
    for position, width in enumerate(settings.widths):
        with seeded(seed + 1 + position):
            network = judge_network(images.pixels.shape[1], class_count, width)
            cached_weights(
                network,
                cache / f"judge-{key[:16]}-{position}.safetensors",
                partial(_train, network, images, settings, device, progress, f"training judge {position + 1}"),
            )
        panel.append(Classifier(network, class_count, device=device, name=f"judge {position + 1}"))
    return panel


def judge_network(channels: int, class_count: int, width: int) -> nn.Module:
    """Four convolutions with batch norm, halving the image before the first, third and fourth; one linear layer."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride, pool in (
        (channels, width, 5, 2, False),
        (width, 2 * width, 3, 1, True),
        (2 * width, 4 * width, 3, 1, True),
        (4 * width, 4 * width, 3, 1, False),
    ):
        layers.append(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, class_count))


def augment(images: Tensor) -> Tensor:
    """Each image turned by up to 15 degrees, scaled by up to 15%, sheared and moved by up to 8%.

    float N x C x H x W in and out; what moves in from outside is black.
    """
    count = len(images)
    angle, scale, shear, x, y = (torch.rand(5, count, device=images.device) * 2 - 1).unbind()
    angle, scale, shear = angle * 0.26, 1 + scale * 0.15, shear * 0.15
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, shear - sin, x * 0.16, sin, cos, y * 0.16], dim=1).view(count, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _train(
    network: nn.Module,
    images: LabelledImages,
    settings: JudgeSettings,
    device: torch.device | str,
    progress: Progress,
    title: str,
) -> None:
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, settings.steps)
    with progress.task(title, settings.steps) as advance:
        for _ in range(settings.steps):
            chosen = torch.randint(len(images), (settings.batch,))
            batch = augment(images.pixels[chosen].to(device).float() / 255)
            loss = F.cross_entropy(network(batch), images.labels[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance(1, f"loss {loss.item():.3f}")
