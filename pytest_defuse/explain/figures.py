"""Figures of tree nodes, laid out as in the paper (figures 6 and 21 to 64).

From top to bottom: the group's images that activate the node's feature most, their heatmaps, the feature attack on
them, a random sample of the node's failing images, and one of its images that the model classifies correctly.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pytest_defuse.explain.explanation import Explanation
from pytest_defuse.explain.visuals import feature_attack, heatmaps, most_activating
from pytest_defuse.rules.honest_split import Rows
from pytest_defuse.rules.trees import Node, rule_words
from pytest_defuse.runtime.determinism import Stream, random_numbers, seeded
from pytest_defuse.subject.images import quantise

FIGURE_COLUMNS = 6
"""Images in a row. The sizes below are in pixels, and our choice."""
TILE, GAP = 96, 6
MARGIN, LINE = 150, 18
"""Width of the names of the rows, and height of a line of text. Our choice."""
RED = torch.tensor([1.0, 0.0, 0.0])[:, None, None]


def node_figure(explanation: Explanation, group: str, node: Node) -> Image.Image:
    """The figure of a node below the root, by the feature of its last condition."""
    condition, cluster = node.path[-1], node.cluster
    subject, network = explanation.subject, explanation.network
    pixels, modes = subject.test_images.pixels, explanation.modes
    strongest = most_activating(explanation.features, condition.feature, modes.groups[group].rows, FIGURE_COLUMNS)
    activating = pixels[torch.from_numpy(strongest)]
    with seeded(explanation.seed, explanation.model.device):  # a network may draw random numbers
        maps = heatmaps(network, activating, condition.feature)
        attacked = quantise(feature_attack(network, activating, condition.feature))
    rows = modes.rows(group, node.path, explanation.features)
    failing = _sample(rows[explanation.failed[rows]], explanation.seed)
    correct = _sample(rows[~explanation.failed[rows]], explanation.seed)
    heading, classes = "predictions:", explanation.predictions
    if modes.groups[group].kind == "prediction":  # all its images have the same one
        heading, classes = "labels:", subject.test_images.labels.numpy()
    low, high = cluster.error_rate_interval
    title = [
        f"{group}: {rule_words(node.path)}",
        f"error rate {cluster.base_error_rate:.1%} -> {cluster.error_rate:.1%} ({100 * cluster.increase:+.1f} points; "
        f"95% interval {low:.1%} to {high:.1%}), {cluster.failures} of {cluster.images} images, "
        f"{cluster.error_coverage:.0%} of the failures",
    ]
    images = [
        (f"feature {condition.feature} strongest", activating, ()),
        ("heatmap", overlaid(activating, maps), ()),
        ("feature attack", attacked, ()),
        (f"failures, {heading}", pixels[torch.from_numpy(failing)], [subject.classes[n] for n in classes[failing]]),
        ("correct", pixels[torch.from_numpy(correct)], ()),
    ]
    return _figure(title, images)


def overlaid(pixels: Tensor, maps: Tensor) -> Tensor:
    """Images, uint8 N x C x H x W, with heatmaps, float N x H x W in [0, 1], in red; uint8 N x 3 x H x W."""
    images = pixels.float().expand(-1, 3, -1, -1) / 255
    opacity = 0.7 * maps[:, None]
    return quantise(images * (1 - opacity) + RED * opacity)


def _sample(rows: Rows, seed: int) -> Rows:
    return np.sort(random_numbers(seed, Stream.FIGURES).permutation(rows)[:FIGURE_COLUMNS])


def _figure(title: Sequence[str], rows: Sequence[tuple[str, Tensor, Sequence[str]]]) -> Image.Image:
    width = MARGIN + FIGURE_COLUMNS * (TILE + GAP) + GAP
    lines = [part for line in title for part in _wrapped(line, width - 2 * GAP)]
    heights = [TILE + GAP + (LINE if captions else 0) for _, _, captions in rows]
    figure = Image.new("RGB", (width, len(lines) * LINE + 2 * GAP + sum(heights)), "white")
    pen = ImageDraw.Draw(figure)
    for number, line in enumerate(lines):
        pen.text((GAP, GAP + number * LINE), line, "black", _font(14))
    top = 2 * GAP + len(lines) * LINE
    for (name, images, captions), height in zip(rows, heights, strict=True):
        pen.text((GAP, top + TILE // 2 - LINE // 2), name if len(images) else f"{name}: none", "black", _font(13))
        for column, image in enumerate(images):
            left = MARGIN + column * (TILE + GAP)
            figure.paste(_enlarged(image), (left, top))
            if captions:
                text = captions[column]
                while pen.textlength(text, _font(11)) > TILE:
                    text = text[:-2].rstrip(".") + "."
                pen.text((left, top + TILE), text, "black", _font(11))
        top += height
    return figure


def _enlarged(pixels: Tensor) -> Image.Image:
    """An image, uint8 C x H x W, with a longer side of ``TILE`` pixels; small images stay sharp."""
    image = Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def _wrapped(text: str, width: int) -> list[str]:
    first, *words = text.split()
    lines = [first]
    for word in words:
        longer = f"{lines[-1]} {word}"
        lines[-1:] = [longer] if _font(14).getlength(longer) <= width else [lines[-1], word]
    return lines


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
