"""Reproducible random numbers that leave the global generators unchanged."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

Device = torch.device | str


@contextmanager
def seeded(seed: int, device: Device = "cpu") -> Iterator[None]:
    """Seed the global random generators inside the block, and restore their states after it.

    These are Python's, numpy's, and torch's of the CPU and of one device. The states are restored after an error too,
    so the user's random numbers do not depend on our work between them. Other devices are not touched: on each GPU,
    the first access takes memory and time.

    Args:
        device: where models run inside the block.
    """
    python_state, numpy_state, torch_states = random.getstate(), np.random.get_state(), _torch_states(device)
    try:
        seed_all(seed, device)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for restore, state in torch_states:
            restore(state)


def seed_all(seed: int, device: Device = "cpu") -> None:
    """Seed the generators that :func:`seeded`, in whose block it is called, restores."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed % 2**64)  # torch.manual_seed would seed all devices
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed % 2**64)
    elif device.type == "mps":
        torch.mps.manual_seed(seed % 2**64)


def _torch_states(device: Device) -> list[tuple[Callable[[Tensor], object], Tensor]]:
    """The states of torch's generators, each with the function that restores it."""
    states: list[tuple[Callable[[Tensor], object], Tensor]] = [(torch.set_rng_state, torch.get_rng_state())]
    device = torch.device(device)
    if device.type == "cuda":
        states.append((partial(torch.cuda.set_rng_state, device=device), torch.cuda.get_rng_state(device)))
    elif device.type == "mps":
        states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    return states


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 products and convolutions in float32 inside the block, whatever precision is set outside it.

    By default torch computes convolutions on GPUs in TensorFloat-32, whose mantissa has 10 bits instead of 23.
    """
    settings, before = _float32_settings(), []
    for read, write, _ in settings:
        with suppress(RuntimeError):  # the older setting, where the user's code uses the newer one
            before.append((write, read()))
    try:
        for _, write, full in settings:
            write(full)
        yield
    finally:
        for write, value in before:
            write(value)


def _float32_settings() -> list[tuple[Callable[[], Any], Callable[[Any], Any], Any]]:
    """Torch's settings of the precision of float32: each one's reader, its writer, and its value for full float32."""
    backends: Any = torch.backends
    cudnn, mkldnn, matmul = backends.cudnn, backends.mkldnn, backends.cuda.matmul
    settings: list[tuple[Callable[[], Any], Callable[[Any], Any], Any]] = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        (partial(getattr, cudnn, "allow_tf32"), partial(setattr, cudnn, "allow_tf32"), False),
    ]
    if hasattr(matmul, "fp32_precision"):  # since torch 2.9; the older settings change it too, so it comes after them
        for operation in (matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn):
            name = "fp32_precision"
            settings.append((partial(getattr, operation, name), partial(setattr, operation, name), "ieee"))
    return settings


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
    FINETUNING_ORDER = 14  # item: epoch


def random_numbers(seed: int, stream: Stream, item: int = 0, draw: int = 0, /) -> np.random.Generator:
    """A generator whose numbers depend on (seed, stream, item, draw) only; item and draw are 0 or more.

    It is counter-based (Philox; Salmon et al. 2011), with another counter for each of them, so the order of calls, the
    batch size and the number of processes do not change its numbers.
    """
    return _philox(seed, stream, item, draw)


def derived_seed(seed: int, number: int, bits: int) -> int:
    """A seed, below 2**bits, of another generator: for one step of a training, or for one start of a fit.

    These numbers stay as they are: stored regions belong to the generator that a training with them gave.
    """
    return int(_philox(seed, number).integers(2**bits))


def _philox(seed: int, *words: int) -> np.random.Generator:
    counter = np.zeros(4, dtype=np.uint64)
    counter[1 : 1 + len(words)] = words  # the first word counts the numbers
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))
