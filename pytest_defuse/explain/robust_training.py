"""Adversarially robust networks: their features are interpretable (Barlow, section 4)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.discover.judges import convolution
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.settings import Count, Positive, Settings, setting
from pytest_defuse.runtime.training import Schedule, train_once
from pytest_defuse.subject.preprocessing import normalized
from pytest_defuse.subject.subject import Subject

START_RADIUS = 0.5
"""Distance of an attack's random start from the image, as a share of the radius. Our choice."""
ATTACK_LENGTH = 2
"""Length of all steps of an attack together, in units of the radius: enough to cross the ball. Our choice."""


class RobustSettings(Settings):
    """Training of a robust network; the defaults are for images of 28 to 32 pixels."""

    renamed: ClassVar = {"updates": "steps", "batch": "batch_size", "rate": "learning_rate"}

    radius: Positive = setting(
        1.0,
        "Radius of the L2 ball around an image with pixels in [0, 1].",
        "our choice; Barlow, section 4: 3 for 224 x 224 RGB",
    )
    attack_steps: Count = setting(2, "Steps of projected gradient ascent in each optimizer step.")
    width: Count = setting(16, "Channels of the first convolution, an eighth of the features.")
    steps: Count = setting(600, "Optimizer steps.")
    batch_size: Count = setting(128, "Images in one step.")
    learning_rate: Positive = setting(5e-3, "The largest learning rate.")


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

    Minimises the mean over images of the largest loss(x + d) with ||d||_2 <= radius; projected gradient ascent
    finds the inner maximum approximately (Madry et al. 2018). With a cache, an interrupted training resumes. The result
    is in eval mode, on the CPU, ready for ``Subject(feature_network=...)``.

    Args:
        network: normalised images -> logits, float N x len(classes); trained in place. Default: a small
            convolutional network that averages its last feature maps over the image.
        cache: folder of trained weights; equal networks, images, settings and seeds are trained once.

    Raises:
        DefuseError: the training set cannot be used, the cache cannot be written to, or the loss is NaN.
    """
    settings = settings or RobustSettings()
    images = subject.train_images
    if network is None:
        with seeded(seed):
            network = robust_network(images.pixels.shape[1], len(subject.classes), settings.width)
    start = subject.classifier(model=network, name="the robust network").identity
    parts = {"data": images.hash, "settings": settings, "seed": seed, "network": start.fingerprint}
    key = fingerprint("robust network", version=3, **parts)
    train_once(
        network.to(device),
        partial(_robust_loss, network, subject, settings, device),
        Schedule(settings.steps, settings.learning_rate, weight_decay=1e-2),  # PyTorch's default for AdamW
        cache and cache / f"robust-{key[:16]}.safetensors",
        seed=seed,
        progress=progress or Progress(),
        title="training a robust network",
        outputs={"the untrained network": start.outputs},
    )
    return network.to("cpu").eval()


def robust_network(channels: int, class_count: int, width: int) -> nn.Module:
    """Four convolutions on a quarter of the image's side, the mean of each feature map, one linear layer."""
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


def projected_gradient_ascent(
    objective: Callable[[Tensor], Tensor], start: Tensor, origin: Tensor, *, radius: float, step: float, steps: int
) -> Tensor:
    """Maximise a function of images inside L2 balls (Barlow, appendix C; Madry et al. 2018, section 2).

    Args:
        objective: float N x C x H x W in [0, 1] -> float N, one value for each image.
        origin: the centres of the balls, N x C x H x W.
        step: length of one step along each image's gradient.

    Returns:
        float N x C x H x W in [0, 1], each within ``radius`` of its origin.
    """
    images = start
    for _ in range(steps):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(images).sum(), images)
        images = projected(images.detach() + step * gradient / _norms(gradient).clamp(min=1e-12), origin, radius)
    return images.detach()


def projected(images: Tensor, origin: Tensor, radius: float) -> Tensor:
    """Images moved into the L2 balls around their origins, then clipped to [0, 1], which does not leave the ball."""
    offset = images - origin
    return (origin + offset * (radius / _norms(offset).clamp(min=radius))).clamp(0, 1)


def _norms(tensors: Tensor) -> Tensor:
    norms: Tensor = tensors.flatten(1).norm(dim=1)
    return norms[:, None, None, None]


def _robust_loss(
    network: nn.Module, subject: Subject, settings: RobustSettings, device: torch.device | str, step: int
) -> Tensor:
    """The loss of one batch after an attack on it; the attack does not change batch statistics."""
    images, normalize, radius = subject.train_images, subject.normalize, settings.radius
    chosen = torch.randint(len(images), (settings.batch_size,))
    origin, labels = images.pixels[chosen].to(device).float() / 255, images.labels[chosen].to(device)

    def losses(inputs: Tensor) -> Tensor:
        logits = network(normalized(normalize, inputs))
        return F.cross_entropy(logits, labels, reduction="none")

    noise = torch.randn_like(origin)
    start = projected(origin + START_RADIUS * radius * noise / _norms(noise), origin, radius)
    step_length, steps = ATTACK_LENGTH * radius / settings.attack_steps, settings.attack_steps
    network.eval()
    attacked = projected_gradient_ascent(losses, start, origin, radius=radius, step=step_length, steps=steps)
    network.train()
    return losses(attacked).mean()
