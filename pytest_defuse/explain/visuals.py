"""Visualisations of a feature: activating images, heatmaps and feature attacks (Barlow, section 4)."""

import itertools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pytest_defuse.explain.features import FeatureNetwork, recorded_outputs
from pytest_defuse.explain.robust_training import projected_gradient_ascent
from pytest_defuse.rules.gain import Features
from pytest_defuse.rules.honest_split import Rows

PATCHES_PER_SIDE = 7
"""The image's side divided by the side of the occluding patch. Our choice."""
ATTACK_STEPS = 100
"""Steps of a feature attack; the paper takes 500 (appendix C)."""
ATTACK_STEPS_ACROSS = 20
"""Steps of a feature attack from the original image to the surface of the ball. Our choice."""


def most_activating(features: Features, feature: int, rows: Rows, count: int = 6) -> Rows:
    """The ``count`` rows on which a feature is largest, the largest first."""
    return rows[np.argsort(-features[rows, feature], kind="stable")[:count]]


@torch.no_grad()
def heatmaps(network: FeatureNetwork, pixels: Tensor, feature: int) -> Tensor:
    """Where each image, uint8 N x C x H x W, activates a feature: float N x H x W on the CPU, each from 0 to 1.

    As in the paper, the heatmap is the feature map before it is averaged over the image, or the feature's value at each
    token of a vision transformer. For other networks it is occlusion sensitivity: how much the feature falls when a
    grey patch covers the position. A map without contrast is all zero.
    """
    images = _floats(network, pixels)
    maps = _feature_maps(network, images)
    heatmap = _occlusion(network, images, feature) if maps is None else maps[:, feature]
    low, high = heatmap.amin(dim=(1, 2), keepdim=True), heatmap.amax(dim=(1, 2), keepdim=True)
    scaled = (heatmap - low) / torch.where(high > low, high - low, 1)
    resized = F.interpolate(scaled[:, None], size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    return resized[:, 0].clamp(0, 1).cpu()


def feature_attack(network: FeatureNetwork, pixels: Tensor, feature: int, *, radius: float | None = None) -> Tensor:
    """Change each image, inside an L2 ball, so that a feature becomes as large as possible (appendix C).

    Args:
        pixels: uint8 N x C x H x W.
        radius: of the ball, with pixels in [0, 1]; default: as if every value moved by 0.1. The paper's 500 for
            3 x 224 x 224 is more than the diagonal of the box.

    Returns:
        float N x C x H x W in [0, 1] on the CPU; no image is farther than ``radius`` from the original.
    """
    images = _floats(network, pixels)
    radius = 0.1 * math.sqrt(images[0].numel()) if radius is None else radius
    step = radius / ATTACK_STEPS_ACROSS

    def objective(inputs: Tensor) -> Tensor:
        return network.forward(inputs)[:, feature]

    with torch.enable_grad():
        return projected_gradient_ascent(objective, images, images, radius=radius, step=step, steps=ATTACK_STEPS).cpu()


def _floats(network: FeatureNetwork, pixels: Tensor) -> Tensor:
    return pixels.to(network.classifier.device).float() / 255


def _feature_maps(network: FeatureNetwork, images: Tensor) -> Tensor | None:
    """The last output inside the network that pools to the features, N x F x h x w; None if none does."""
    with recorded_outputs(network.classifier.module) as outputs:
        features = network.forward(images)
    for output in reversed(outputs):
        for maps, pooled in _readings(output, features.shape[1]):
            if maps.shape[-1] > 1 and torch.allclose(pooled, features, rtol=1e-3, atol=1e-5):
                return maps
    return None


def _readings(output: Tensor, features: int) -> list[tuple[Tensor, Tensor]]:
    """An output as maps N x F x h x w, with the features N x F that each way of pooling gives."""
    readings = []
    if output.ndim == 4:
        for maps in (output, output.permute(0, 3, 1, 2)):
            if maps.shape[1] == features:
                readings += [(maps, maps.mean(dim=(2, 3))), (maps, maps.amax(dim=(2, 3)))]
    if output.ndim == 3 and output.shape[2] == features:
        tokens = output.shape[1]
        for extra in (0, 1):  # without and with a class token
            side = math.isqrt(tokens - extra)
            if side * side == tokens - extra:
                maps = output[:, extra:].transpose(1, 2).unflatten(2, (side, side))
                pooled = [output[:, 0]] if extra else []
                readings += [(maps, vector) for vector in (*pooled, output.mean(dim=1), output[:, extra:].mean(dim=1))]
    return readings


def _occlusion(network: FeatureNetwork, images: Tensor, feature: int) -> Tensor:
    """How much the feature falls when a patch of the image's mean colour covers a position: N x h x w, at least 0."""
    height, width = images.shape[-2:]
    patch = max(1, min(height, width) // PATCHES_PER_SIDE)
    rows, columns = -(-height // patch), -(-width // patch)
    grey = images.mean(dim=(2, 3), keepdim=True)
    uncovered = network.forward(images)[:, feature]
    falls = []
    for row, column in itertools.product(range(rows), range(columns)):
        covered = images.clone()
        covered[:, :, row * patch :, column * patch :][:, :, :patch, :patch] = grey
        falls.append(uncovered - network.forward(covered)[:, feature])
    maps: Tensor = torch.stack(falls, dim=1).unflatten(1, (rows, columns)).clamp(min=0)
    return maps
