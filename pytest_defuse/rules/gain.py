"""Ranks features by their information about failures: an exact search for the best split of all features together."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

Features = NDArray[np.float32]
"""N x F."""

Mask = NDArray[np.bool_]
"""N."""

FEATURES_PER_BLOCK = 64
"""Features that are searched together: few enough for the processor's cache (benchmarks/failure_modes_speed.py)."""


def split_gains(features: Features, failed: Mask, min_leaf: int = 1) -> NDArray[np.float64]:
    """The information gain of the best threshold on each feature, in bits.

    Failures and successes have the same total weight, as in the trees (Barlow, section 5), so gains are in [0, 1].
    The search is exact: it tries a threshold between any two neighbouring values.

    Args:
        min_leaf: minimum number of images on each side of a threshold.

    Returns:
        float64 F; 0 where a feature cannot be split, and everywhere if all images failed or none did.
    """
    images, count = features.shape
    failures = int(failed.sum())
    successes = images - failures
    first, last = min_leaf - 1, images - min_leaf  # the last image on the left, in sorted order
    if not failures or not successes or last <= first:
        return np.zeros(count)
    # A side's entropy times its weight, in nats, is e(f) + e(s) - e(f + s) with e(x) = -x log x. Each e depends on one
    # count only, that of failures or of successes, so it is looked up.
    of_failures = entr(np.arange(failures + 1) / failures / 2)
    of_successes = entr(np.arange(successes + 1) / successes / 2)
    left_images = np.arange(1, images + 1)[first:last]
    gains = np.empty(count)
    for start in range(0, count, FEATURES_PER_BLOCK):
        ordered, failures_in_order = _sorted(features[:, start : start + FEATURES_PER_BLOCK], failed)
        left_failures = np.cumsum(failures_in_order, axis=1)[:, first:last]
        left_successes = left_images - left_failures
        weight = left_failures / failures / 2 + left_successes / successes / 2
        nats = of_failures[left_failures] + of_failures[failures - left_failures]
        nats += of_successes[left_successes] + of_successes[successes - left_successes]
        nats -= entr(weight) + entr(1 - weight)
        # No threshold separates equal values.
        nats[ordered[:, first:last] == ordered[:, first + 1 : last + 1]] = np.log(2)
        gains[start : start + FEATURES_PER_BLOCK] = 1 - nats.min(axis=1) / np.log(2)
    return gains.clip(0, 1)


def _sorted(block: Features, failed: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each feature's values in order, as integers with the same order and ties, and which images failed: both F x N."""
    # The bits of floats sort like integers once those of negative numbers are inverted. With the failure as the lowest
    # bit, one plain sort replaces an argsort and a look-up, in a fraction of the time.
    values = np.ascontiguousarray(block.T, dtype=np.float32) + np.float32(0)  # makes -0 a 0
    bits = values.view(np.int32).astype(np.int64)
    keys = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 1 | failed
    keys.sort(axis=1)
    return keys >> 1, keys & 1
