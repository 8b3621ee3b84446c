"""Reproducible random numbers that leave the global generators unchanged."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch inside the block, and restore their states after it.

    The states are restored after an error too, so the user's random numbers do not depend on our work between them.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            seed_all(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch; call it inside :func:`seeded`, which restores them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**64)


class Stream(IntEnum):
    """All streams of random numbers, one for each purpose, with what their items and draws are."""

    PAPER_DRAWS = 0  # item: training image
    ADAPTIVE_DRAWS = 1  # item: training image, draw: block
    EXPLORATION = 2  # item: round of the search
    CONFIRMATION = 3  # item: region
    SHEETS = 4  # item: region, draw: round
    CORRECTION_TILES = 5
    HELD_OUT_TILES = 6
    RULE_HALVES = 7
    SHIFTS = 8  # item: kind of shift, draw: chunk of images
    SEARCHED_IMAGES = 9
    FIGURES = 10
    VALIDATION_SPLIT = 11
    SHIFTED_SAMPLE = 12
    BATCH_NORM_SAMPLE = 13


def random_numbers(seed: int, stream: Stream, item: int = 0, draw: int = 0, /) -> np.random.Generator:
    """A generator whose numbers depend on (seed, stream, item, draw) only; item and draw are 0 or more.

    It is counter-based (Philox; Salmon et al. 2011), with another counter for each of them, so the order of calls, the
    batch size and the number of processes do not change its numbers.
    """
    return _philox(seed, stream, item, draw)


def derived_seed(seed: int, number: int, bits: int) -> int:
    """A seed, below 2**bits, of another generator: for one step of a training, or for one start of a fit."""
    return int(_philox(seed, number).integers(2**bits))


def _philox(seed: int, *words: int) -> np.random.Generator:
    counter = np.zeros(4, dtype=np.uint64)
    counter[1 : 1 + len(words)] = words  # the first word counts the numbers
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))
