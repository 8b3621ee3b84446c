"""Adversarially robust networks: their features show what they stand for (Barlow, section 4)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.runtime.cache import cached_weights
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.fingerprint import fingerprint, plain_repr
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import model_input
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject


@dataclass(frozen=True)
class RobustSettings:
    """How a robust network is trained.

    Attributes:
        radius: of the L2 ball around an image, pixels being in [0, 1] (the paper's rho; 3 at 224 x 224 RGB).
        attack_steps: steps of projected gradient ascent inside the ball, for each update.
        width: channels of the first convolution; there are eight times as many features.
        updates, batch, rate: steps of AdamW, images in a step, and the peak of its one-cycle learning rate.
    """

    radius: float = 1.0
    attack_steps: int = 2
    width: int = 16
    updates: int = 600
    batch: int = 128
    rate: float = 5e-3


def train_robust(
    subject: Subject,
    network: nn.Module | None = None,
    settings: RobustSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a network on the subject's training images against L2-bounded attacks (Barlow, objective 1).

    Minimised is the mean over images of the largest loss(x + d) with ||d||_2 <= radius; the inner maximum
    is sought by projected gradient ascent (Madry et al. 2018).

    Args:
        network: normalised images -> logits, float N x len(classes); trained in place. Default: a small
            convolutional network whose last feature maps are averaged over the image.
        cache: a folder in which trained weights are kept, and found again by content hash.

    Returns:
        The network in eval mode, on the CPU: made for ``Subject(feature_network=...)``.

    Raises:
        DefuseError: the training set cannot be used.
    """
    settings = settings or RobustSettings()
    images = subject.train_images
    with seeded(seed):
        if network is None:
            network = robust_network(images.pixels.shape[1], len(subject.classes), settings.width)
        train = partial(_train, network, images, subject.normalize, settings, device, progress or Progress())
        if cache is None:
            train()
        else:
            start = (plain_repr(network), network.state_dict())
            key = fingerprint(
                "robust network", version=1, data=images.hash, settings=settings, seed=seed, network=start
            )
            cached_weights(network, cache / f"robust-{key[:16]}.safetensors", train)
    return network.to("cpu").eval()


def robust_network(channels: int, class_count: int, width: int) -> nn.Module:
    """Four convolutions on a quarter of the image's side, the mean of each feature map, one linear layer."""

    def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *convolution(channels, width, 5, stride=2),
        *convolution(width, 2 * width, 3),
        nn.MaxPool2d(2),
        *convolution(2 * width, 4 * width, 3),
        *convolution(4 * width, 8 * width, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, class_count),
    )


def ascend(
    objective: Callable[[Tensor], Tensor], start: Tensor, origin: Tensor, *, bound: float, step: float, steps: int
) -> Tensor:
    """Projected gradient ascent on images (Barlow, appendix C; Madry et al. 2018, section 2).

    Args:
        objective: float N x C x H x W in [0, 1] -> float N, what to make large for each image.
        start: where to begin; ``origin`` is the centre of the ball.
        bound: the radius of the L2 ball that no image leaves.
        step: length of one step, along each image's gradient.

    Returns:
        float N x C x H x W in [0, 1], each within ``bound`` of its origin.
    """
    images = start
    for _ in range(steps):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(images).sum(), images)
        images = projected(images.detach() + step * gradient / _norms(gradient).clamp(min=1e-12), origin, bound)
    return images.detach()


def projected(images: Tensor, origin: Tensor, bound: float) -> Tensor:
    """Images moved into the L2 ball around their origins, then into [0, 1].

    The second step cannot leave the ball: the origin is inside the box.
    """
    offset = images - origin
    return (origin + offset * (bound / _norms(offset).clamp(min=bound))).clamp(0, 1)


def _norms(tensors: Tensor) -> Tensor:
    norms: Tensor = tensors.flatten(1).norm(dim=1)
    return norms[:, None, None, None]


def _train(
    network: nn.Module,
    images: LabelledImages,
    normalize: Callable[[Tensor], Tensor] | None,
    settings: RobustSettings,
    device: torch.device | str,
    progress: Progress,
) -> None:
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, settings.updates)
    with progress.task("training a robust network", settings.updates) as advance:
        for _ in range(settings.updates):
            chosen = torch.randint(len(images), (settings.batch,))
            pixels, labels = images.pixels[chosen].to(device), images.labels[chosen].to(device)
            network.eval()
            attacked = _attack(network, pixels, labels, normalize, settings)
            network.train()
            loss = _losses(network, attacked, labels, normalize).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance(1, f"loss {loss.item():.3f}")


def _attack(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    normalize: Callable[[Tensor], Tensor] | None,
    settings: RobustSettings,
) -> Tensor:
    """Images within the radius on which the network's loss is large."""
    origin = model_input(pixels, None)
    noise = torch.randn_like(origin)
    return ascend(
        lambda images: _losses(network, images, labels, normalize),
        projected(origin + noise * settings.radius / (2 * _norms(noise)), origin, settings.radius),
        origin,
        bound=settings.radius,
        step=2 * settings.radius / settings.attack_steps,
        steps=settings.attack_steps,
    )


def _losses(network: nn.Module, images: Tensor, labels: Tensor, normalize: Callable[[Tensor], Tensor] | None) -> Tensor:
    logits = network(images if normalize is None else normalize(images))
    return F.cross_entropy(logits, labels, reduction="none")
