"""The perceptual loss: a distance between feature maps of a judge, a reference classifier (Johnson et al. 2016)."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from pytest_defuse.subject.classifier import Classifier

SCALE_IMAGES = 512
"""Images on which the variance of each channel is measured; our choice."""
MIN_RELATIVE_VARIANCE = 1e-2
"""Floor of a channel's variance, relative to the mean over channels: one that hardly varies on real images must not
outweigh all others. Our choice."""


class FeatureMaps:
    """The maps after each convolution of a judge, and its logits; each channel in units of its own variance.

    Args:
        judge: any classifier; without convolutions, only its logits are compared.
        pixels: uint8 N x C x H x W, images of the judge's size; the variances are measured on an evenly spaced sample.
    """

    def __init__(self, judge: Classifier, pixels: Tensor) -> None:
        self.judge = judge
        self._layers = [module for module in judge.module.modules() if isinstance(module, nn.Conv2d)]
        sample = pixels[:: max(1, len(pixels) // SCALE_IMAGES)][:SCALE_IMAGES].to(judge.device)
        with torch.no_grad():
            variances = [maps.transpose(0, 1).flatten(1).var(dim=1, correction=0) for maps in self.maps(sample / 255)]
        self._variances = [v.clamp_min(MIN_RELATIVE_VARIANCE * v.mean() + 1e-12) for v in variances]

    def maps(self, images: Tensor) -> list[Tensor]:
        """The maps of float images in [0, 1], each float N x channels (x H x W); differentiable in the images."""
        maps: list[Tensor] = []
        with ExitStack() as hooks:
            for layer in self._layers:
                hooks.enter_context(layer.register_forward_hook(lambda _, __, output: maps.append(output)))
            maps.append(self.judge.forward(images))
        return [tensor.float() for tensor in maps]

    def distance(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Mean squared distance of the maps, a scalar: 0 for equal images, about 2 for unrelated ones.

        Args:
            images: float N x C x H x W in [0, 1]; constants, no gradients flow through them.
            reconstructions: of the same shape, image by image; the distance is differentiable in these.
        """
        with torch.no_grad():
            targets = self.maps(images)
        distances = [
            (maps - target).square().transpose(0, 1).flatten(1).mean(dim=1).div(variance).mean()
            for maps, target, variance in zip(self.maps(reconstructions), targets, self._variances, strict=True)
        ]
        return torch.stack(distances).mean()
