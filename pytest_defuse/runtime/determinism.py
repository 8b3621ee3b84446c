"""Randomness that comes from a seed and leaves no trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch inside; put their states back on leaving.

    The states come back also after an error, so nobody's random numbers change because a verb of
    ours ran between them.
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
    """Seed the global generators of Python, numpy and torch; inside :func:`seeded`, so that it leaves no trace."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**64)


def random_numbers(seed: int, stage: int = 0, item: int = 0, draw: int = 0, /) -> np.random.Generator:
    """The random numbers that belong to (seed, stage, item, draw) alone; each is 0 or more.

    A counter-based generator (Philox) is started at a counter of its own for each: no call order, batch
    size or process count can change what it yields.
    """
    counter = np.array([0, stage, item, draw], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))
