"""Between two models: weights interpolated (WiSE-FT, Wortsman et al. 2022), batch statistics measured anew."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH = 256
MOST_IMAGES = 4096


def interpolated(first: dict[str, Any], second: dict[str, Any], alpha: float) -> dict[str, Any]:
    """``first`` at alpha 0, ``second`` at 1, exactly; numbers between are computed in float32 at least.

    What is no floating-point tensor (counters, extra state) comes from ``second``.
    """
    return {name: _between(first[name], value, alpha) for name, value in second.items()}


@torch.no_grad()
def remeasure_batch_norm(model: nn.Module, pixels: Tensor, feed: Callable[[Tensor], Any]) -> None:
    """Set running means and variances to those of training images, as the weights now make them.

    Statistics do not interpolate as weights do. Layers without a trainable parameter keep theirs.

    Args:
        pixels: uint8 training images; the first 4,096 are used.
        feed: runs the model on some of them.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module.track_running_stats
        and any(parameter.requires_grad for parameter in module.parameters())
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average over all batches
        layer.train()
    try:
        some = pixels[:MOST_IMAGES]
        for batch in some.tensor_split(-(-len(some) // BATCH)):
            feed(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()


def _between(first: Any, second: Any, alpha: float) -> Any:
    if alpha == 1 or not isinstance(second, Tensor) or not second.is_floating_point():
        return second
    if alpha == 0:
        return first
    wide = torch.promote_types(second.dtype, torch.float32)
    return torch.lerp(first.to(second.device, wide), second.to(wide), alpha).to(second.dtype)
