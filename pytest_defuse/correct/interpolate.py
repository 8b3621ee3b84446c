"""Interpolation between the weights of two models (WiSE-FT, Wortsman et al. 2022), with new batch statistics."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pytest_defuse.runtime.determinism import Stream, random_numbers

BATCH_NORM_IMAGES = 4096
"""Training images from which batch statistics are computed. Our choice: 16 batches."""

BATCH_NORM_BATCH_SIZE = 256
"""Images in one forward pass that computes batch statistics. Our choice."""


def interpolated(first: dict[str, Tensor], second: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """State dicts interpolated, from ``first`` at alpha 0 to ``second`` at 1; counters come from ``second``."""
    return {name: _between(first[name], value, alpha) for name, value in second.items()}


@torch.no_grad()
def recompute_batch_norm(model: nn.Module, pixels: Tensor, forward: Callable[[Tensor], Any], *, seed: int) -> int:
    """Set running means and variances to those of a random sample of training images, with the current weights.

    Batch statistics of interpolated weights are not the interpolated statistics. Layers without a trainable parameter
    keep theirs.

    Args:
        pixels: training images, uint8 N x C x H x W; their order, which may be by class, does not matter.
        forward: runs the model on a batch of images.

    Returns:
        The number of images in the sample; 0 if no layer has statistics to compute.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    layers = [layer for layer in layers if any(parameter.requires_grad for parameter in layer.parameters())]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # None: the plain average over all batches
        layer.train()
    order = random_numbers(seed, Stream.BATCH_NORM_SAMPLE).permutation(len(pixels))
    sample = torch.from_numpy(order[:BATCH_NORM_IMAGES])
    for batch in sample.tensor_split(-(-len(sample) // BATCH_NORM_BATCH_SIZE)):
        forward(pixels[batch])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
    return len(sample)


def _between(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    if alpha == 1 or not second.is_floating_point():
        return second
    if alpha == 0:
        return first
    wide = torch.promote_types(second.dtype, torch.float32)
    return torch.lerp(first.to(second.device, wide), second.to(wide), alpha).to(second.dtype)
