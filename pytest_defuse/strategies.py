"""Hypothesis strategies: property tests on new images from a scenario's region (extra ``strategies``)."""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2
from torch import Tensor

from pytest_defuse.discover.generator import cached_generator
from pytest_defuse.plugin.inifile import options_here
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.lookup import stores
from pytest_defuse.scenarios.machine import LatentRegion
from pytest_defuse.scenarios.scenario import Scenario

try:
    from hypothesis import note
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise DefuseError(
        "pytest_defuse.strategies requires hypothesis: pip install 'pytest-defuse[strategies]'."
    ) from error

COORDINATE_STEPS = 1000
"""Coordinates are drawn as integers up to this: integers shrink to 0, while for floats Hypothesis considers 1.0
simpler than 0.3. Our choice."""
DRAW_MASS = 0.5
"""Every draw lies in the ellipsoid that contains this share of the region's Gaussian; its surface is at the median
distance of draws from the Gaussian. In many dimensions most draws come near the surface. Our choice."""


def region_images(
    scenario_id: str, *, store: str | Path | None = None, cache: str | Path | None = None
) -> st.SearchStrategy[Tensor]:
    """New images from the region of latent space that a scenario's images come from.

    A draw is one offset per latent dimension. Offsets shrink to 0, so the simplest image is that of the region's mean.
    Hypothesis stores a failing image as these numbers in its database and replays it exactly.
    The images are on no contact sheet, and nobody has looked at them. The closer they are to the mean, the more likely
    they show the scenario's label.

    Args:
        scenario_id: a scenario of any subject and status.
        store, cache: folders of the scenarios and of trained generators; default: those that pytest's ini file and the
            environment set for the test file that calls this function.

    Returns:
        Strategy of images, uint8 C x H x W.

    Raises:
        DefuseError: when the test runs: the scenario does not exist or has no region, or its generator is not in the
            cache.
    """
    caller = sys._getframe(1).f_code.co_filename
    # Deferred, so that collecting tests loads no generator, and the time to load it does not count for a draw.
    return st.deferred(lambda: _strategy(scenario_id, store, cache, caller))


def _strategy(
    scenario_id: str, store: str | Path | None, cache: str | Path | None, caller: str
) -> st.SearchStrategy[Tensor]:
    if store is None or cache is None:
        options = options_here([caller])
        store, cache = store or options.store, cache or options.cache
    scenario = _find(Path(store), scenario_id)
    region, tile = scenario.machine.region, scenario.record.tile
    if region is None:
        raise DefuseError(
            f"{scenario.folder} has no region to draw from: only discovery (method: defuse) finds regions."
        )
    shape = (tile.channels, tile.height, tile.width)
    generator = cached_generator(Path(cache), region.generator, shape, len(region.mean))

    def image(steps: list[int]) -> Tensor:
        offsets = offsets_inside(np.array(steps) / COORDINATE_STEPS)
        note(f"image of {scenario.id}, {np.linalg.norm(offsets):.2f} standard deviations from the region's mean")
        return generator.decode(_codes(region, offsets))[0]

    dim = len(region.mean)
    return st.lists(st.integers(-COORDINATE_STEPS, COORDINATE_STEPS), min_size=dim, max_size=dim).map(image)


def offsets_inside(cube: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map a point of the cube [-1, 1]^d to offsets from the mean inside the ellipsoid, in standard deviations.

    Points move along straight lines through the origin, which does not move; the faces of the cube are mapped to the
    surface of the ellipsoid. So no point is rejected, and every coordinate has an effect.
    """
    length = np.linalg.norm(cube)
    if not length:
        return cube
    radius = chi2.ppf(DRAW_MASS, len(cube)) ** 0.5
    offsets: NDArray[np.float64] = cube * (np.abs(cube).max() / length) * radius
    return offsets


def _codes(region: LatentRegion, offsets: NDArray[np.float64]) -> Tensor:
    cholesky = np.linalg.cholesky(region.tau * np.array(region.covariance))
    return torch.from_numpy(np.array(region.mean) + cholesky @ offsets).float()[None]


def _find(root: Path, scenario_id: str) -> Scenario:
    matching = [store for store in stores(root) if (store.folder / scenario_id).is_dir()]
    if not matching:
        raise DefuseError(f"There is no scenario {scenario_id!r} in {root}: pytest-defuse list shows all scenarios.")
    return matching[0].get(scenario_id)
