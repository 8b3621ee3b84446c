import numpy as np
import pytest
import torch
from PIL import Image

from pytest_defuse.explain import Explanation
from pytest_defuse.explain.figures import GAP, MARGIN, TILE, node_figure, overlaid
from pytest_defuse.explain.visuals import most_activating


def shown(figure: Image.Image, pixels: torch.Tensor) -> list[tuple[int, int]]:
    """The positions (row, column) in the figure's grid that show an image, uint8 1 x H x W, enlarged."""
    tile = np.kron(pixels[0].numpy(), np.ones((TILE // pixels.shape[1],) * 2, dtype=np.uint8))
    sheet = np.asarray(figure)[..., 0]
    positions = []
    for column in range(6):
        left = MARGIN + column * (TILE + GAP)
        positions += [
            (top, column)
            for top in range(sheet.shape[0] - TILE + 1)
            if np.array_equal(sheet[top : top + TILE, left : left + TILE], tile)
        ]
    return positions


@pytest.mark.slow
def test_a_figure_shows_activating_and_failing_images_of_its_node(explanation: Explanation) -> None:
    (mode,) = [mode for mode in explanation.modes if mode.group == "label bright"]
    (node,) = [leaf for leaf in explanation.modes.trees[mode.group].leaves() if leaf.path == mode.path]
    figure = node_figure(explanation, mode.group, node)
    pixels = explanation.subject.test_images.pixels
    group = explanation.modes.groups[mode.group].rows
    strongest = most_activating(explanation.features, 3, group)
    tops = {top for row in strongest for top, _ in shown(figure, pixels[row])}
    assert len(tops) >= 1
    first_row = min(tops)
    for column, row in enumerate(strongest):
        assert (first_row, column) in shown(figure, pixels[row])
    rows = explanation.modes.rows(mode.group, mode.path, explanation.features)
    failing = [row for row in rows if explanation.failed[row]]
    below = [row for row in failing if any(top > first_row + 2 * TILE for top, _ in shown(figure, pixels[row]))]
    assert len(below) == 6


def test_a_node_without_failures_has_a_figure(explanation: Explanation) -> None:
    clean = [leaf for leaf in explanation.modes.trees["label bright"].leaves() if not leaf.cluster.failures]
    assert node_figure(explanation, "label bright", clean[0]).size[0] > 6 * TILE


def test_heatmaps_are_red() -> None:
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 2] = 1
    overlay = overlaid(torch.full((1, 1, 4, 4), 100, dtype=torch.uint8), maps)
    assert overlay[0, :, 0, 0].tolist() == [100, 100, 100]
    red, green, blue = overlay[0, :, 1, 2].tolist()
    assert red > 150 > green == blue
