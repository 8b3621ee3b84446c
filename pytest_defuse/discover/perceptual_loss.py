"""What a judge sees of an image, as a distance (perceptual loss: Johnson et al. 2016)."""

import torch
from torch import Tensor, nn

from pytest_defuse.subject.classifier import Classifier

SAMPLE = 512
"""Images from which the scale of each channel is measured."""


class FeatureMaps:
    """The maps after each convolution of a judge, and its logits, each channel in units of its own variance.

    Args:
        judge: any classifier; one without convolutions is compared by its logits alone.
        pixels: uint8 N x C x H x W, images that the judge can read; some of them give the scale.
    """

    def __init__(self, judge: Classifier, pixels: Tensor) -> None:
        self.judge = judge
        self._layers = [module for module in judge.module.modules() if isinstance(module, nn.Conv2d)]
        chosen = pixels[:: max(1, len(pixels) // SAMPLE)][:SAMPLE].to(judge.device)
        with torch.no_grad():
            variances = [maps.transpose(0, 1).flatten(1).var(dim=1, correction=0) for maps in self.of(chosen / 255)]
        # A channel that hardly moves on real images must not outweigh all others.
        self._scales = [variance.clamp_min(1e-2 * variance.mean() + 1e-12) for variance in variances]

    def of(self, images: Tensor) -> list[Tensor]:
        """Float N x channels (x H x W) for each map, of float images in [0, 1]; differentiable in the images."""
        maps: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda _, __, output: maps.append(output)) for layer in self._layers]
        try:
            maps.append(self.judge.read(images))
        finally:
            for hook in hooks:
                hook.remove()
        return [tensor.float() for tensor in maps]

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """Mean squared distance of the maps, a scalar: about 2 for unrelated images, 0 for equal ones.

        Args:
            images: float N x C x H x W in [0, 1]; taken as given.
            others: the same, pair by pair; the distance is differentiable in these.
        """
        with torch.no_grad():
            targets = self.of(images)
        distances = [
            (seen - target).square().transpose(0, 1).flatten(1).mean(dim=1).div(scale).mean()
            for seen, target, scale in zip(self.of(others), targets, self._scales, strict=True)
        ]
        return torch.stack(distances).mean()
