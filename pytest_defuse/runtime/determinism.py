"""Reproducible random numbers that leave the global generators unchanged."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

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


def random_numbers(seed: int, stage: int = 0, item: int = 0, draw: int = 0, /) -> np.random.Generator:
    """A generator whose numbers depend on (seed, stage, item, draw) only; each is 0 or more.

    It is counter-based (Philox; Salmon et al. 2011), with another counter for each of them, so the order of calls, the
    batch size and the number of processes do not change its numbers.
    """
    counter = np.array([0, stage, item, draw], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))
