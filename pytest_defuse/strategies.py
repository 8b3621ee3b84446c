"""Hypothesis strategies: property tests on fresh images from a scenario's region (extra ``strategies``)."""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2
from torch import Tensor

from pytest_defuse.discover.cached_generator import stored_generator
from pytest_defuse.plugin.inifile import options_here
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.schema import LatentRegion
from pytest_defuse.scenarios.store import Scenario, stores

try:
    from hypothesis import note
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise DefuseError(
        "pytest_defuse.strategies needs one more package: pip install 'pytest-defuse[strategies]'."
    ) from error

STEPS = 1000
"""Offsets are drawn as whole steps from the mean: of floats, Hypothesis holds 1.0 to be simpler than 0.3."""
INSIDE = 0.5
"""Every draw lies in the ellipsoid that holds this share of the region: in many dimensions most draws come near its
surface, which is as far from the mean as the region's own draws are."""


def region_images(
    scenario_id: str, *, store: str | Path | None = None, cache: str | Path | None = None
) -> st.SearchStrategy[Tensor]:
    """Fresh images from the region of latent space that a scenario's pictures come from.

    A draw is one offset a latent dimension, which shrinks to 0: the simplest image is that of the region's mean.
    A failing image is a few numbers in Hypothesis' own database, so it is replayed as it was.
    Images are new: no sheet holds them, and no person has looked at them. The closer to the mean, the surer
    they show the scenario's label.

    Args:
        scenario_id: of any status; the id is enough, whatever the subject.
        store, cache: folders of scenarios and of trained generators; default: those that pytest's ini file and
            the environment give to the test file that calls this.

    Returns:
        Strategy of images, uint8 C x H x W.

    Raises:
        DefuseError: when the test runs: no such scenario, one without a region, or no generator here.
    """
    caller = sys._getframe(1).f_code.co_filename
    # Deferred: collecting tests loads no generator, and the time it takes is no draw's.
    return st.deferred(lambda: _strategy(scenario_id, store, cache, caller))


def _strategy(
    scenario_id: str, store: str | Path | None, cache: str | Path | None, caller: str
) -> st.SearchStrategy[Tensor]:
    if store is None or cache is None:
        options = options_here([caller])
        store, cache = store or options.store, cache or options.cache
    scenario = _find(Path(store), scenario_id)
    region, tile = scenario.record.region, scenario.record.tile
    if region is None:
        raise DefuseError(f"{scenario.yaml} has no region to draw from: only discovery (method: defuse) finds one.")
    shape = (1 if tile.mode == "L" else 3, tile.height, tile.width)
    generator = stored_generator(Path(cache), region.generator, shape, len(region.mean))

    def image(steps: list[int]) -> Tensor:
        offsets = inside(np.array(steps) / STEPS)
        note(f"image of {scenario.id}, {np.linalg.norm(offsets):.2f} standard deviations from the region's mean")
        return generator.decode(_codes(region, offsets))[0]

    size = len(region.mean)
    return st.lists(st.integers(-STEPS, STEPS), min_size=size, max_size=size).map(image)


def inside(floats: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets in standard deviations, float64 d, of floats in [-1, 1]: 0 stays 0, and none leaves the ellipsoid.

    The cube is pulled into the ball along straight lines, its faces onto the ball's surface, so that no float
    is without effect.
    """
    length = np.linalg.norm(floats)
    if not length:
        return floats
    offsets: NDArray[np.float64] = floats * (np.abs(floats).max() / length) * chi2.ppf(INSIDE, len(floats)) ** 0.5
    return offsets


def _codes(region: LatentRegion, offsets: NDArray[np.float64]) -> Tensor:
    root = np.linalg.cholesky(region.tau * np.array(region.covariance))
    return torch.from_numpy(np.array(region.mean) + root @ offsets).float()[None]


def _find(root: Path, scenario_id: str) -> Scenario:
    held = [store for store in stores(root) if (store.folder / scenario_id).is_dir()]
    if not held:
        raise DefuseError(f"There is no scenario {scenario_id!r} below {root}: pytest-defuse list shows what there is.")
    return held[0].get(scenario_id)
