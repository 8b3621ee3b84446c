"""One figure for each node of a tree, laid out as in the paper (figures 6 and 21 to 64).

From the top: the images of the group on which the node's feature is strongest, where they show it, what makes it
stronger still, failing images of the node; and passing ones beside them, to compare.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pytest_defuse.explain.explanation import Explanation
from pytest_defuse.explain.failure_modes import Rows
from pytest_defuse.explain.visuals import feature_attack, heatmaps, most_activating
from pytest_defuse.rules.trees import Node, rule_words
from pytest_defuse.runtime.determinism import random_numbers, seeded
from pytest_defuse.subject.images import quantise

COLUMNS = 6
TILE = 96
GAP = 6
MARGIN = 150
LINE = 18
RED = torch.tensor([1.0, 0.0, 0.0])[:, None, None]


def node_figure(explanation: Explanation, group: str, node: Node) -> Image.Image:
    """The figure of a node below the root, by the feature of its last condition."""
    condition, cluster = node.path[-1], node.cluster
    subject, network = explanation.subject, explanation.network
    pixels, modes = subject.test_images.pixels, explanation.modes
    strongest = most_activating(explanation.features, condition.feature, modes.groups[group].rows, COLUMNS)
    shown = pixels[torch.from_numpy(strongest)]
    with seeded(explanation.seed):  # a network may draw random numbers
        maps = heatmaps(network, shown, condition.feature)
        attacked = quantise(feature_attack(network, shown, condition.feature))
    here = modes.rows(group, node.path, explanation.features)
    failing = _some(here[explanation.failed[here]], explanation.seed)
    passing = _some(here[~explanation.failed[here]], explanation.seed)
    # What a group has in common need not be said of each image.
    by_prediction = modes.groups[group].kind == "prediction"
    told, said = (
        ("really", subject.test_images.labels.numpy()) if by_prediction else ("taken for", explanation.predictions)
    )
    low, high = cluster.error_rate_interval
    title = [
        f"{group}: {rule_words(node.path)}",
        f"error rate {cluster.base_error_rate:.1%} -> {cluster.error_rate:.1%} ({100 * cluster.increase:+.1f} points; "
        f"95% interval {low:.1%} to {high:.1%}), {cluster.failures} of {cluster.images} images, "
        f"{cluster.error_coverage:.0%} of the failures",
    ]
    rows = [
        (f"feature {condition.feature} strongest", shown, ()),
        ("where", overlaid(shown, maps), ()),
        ("made stronger", attacked, ()),
        (f"fail here, {told}", pixels[torch.from_numpy(failing)], [subject.classes[index] for index in said[failing]]),
        ("right here", pixels[torch.from_numpy(passing)], ()),
    ]
    return _sheet(title, rows)


def overlaid(pixels: Tensor, maps: Tensor) -> Tensor:
    """Images, uint8 N x C x H x W, redder where heatmaps, float N x H x W in [0, 1], are large; N x 3 x H x W."""
    images = pixels.float().expand(-1, 3, -1, -1) / 255
    weight = 0.7 * maps[:, None]
    return quantise(images * (1 - weight) + RED * weight)


def _some(rows: Rows, seed: int) -> Rows:
    return np.sort(random_numbers(seed, 9).permutation(rows)[:COLUMNS])


def _sheet(title: Sequence[str], rows: Sequence[tuple[str, Tensor, Sequence[str]]]) -> Image.Image:
    width = MARGIN + COLUMNS * (TILE + GAP) + GAP
    lines = [part for line in title for part in _wrapped(line, width - 2 * GAP)]
    heights = [TILE + GAP + (LINE if captions else 0) for _, _, captions in rows]
    sheet = Image.new("RGB", (width, len(lines) * LINE + 2 * GAP + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for line in lines:
        pen.text((GAP, top), line, fill="black", font=_font(14))
        top += LINE
    top += GAP
    for (name, tiles, captions), height in zip(rows, heights, strict=True):
        pen.text((GAP, top + TILE // 2 - LINE // 2), name if len(tiles) else f"{name}: none", "black", _font(13))
        for column, tile in enumerate(tiles):
            left = MARGIN + column * (TILE + GAP)
            sheet.paste(_enlarged(tile), (left, top))
            if captions:
                text = captions[column]
                while pen.textlength(text, _font(11)) > TILE:
                    text = text[:-2].rstrip(".") + "."
                pen.text((left, top + TILE), text, "black", _font(11))
        top += height
    return sheet


def _enlarged(tile: Tensor) -> Image.Image:
    """A tile, uint8 C x H x W, at TILE pixels: small ones with their pixels to be seen."""
    image = Image.fromarray(tile.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    small = max(image.size) <= TILE
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(14).getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
