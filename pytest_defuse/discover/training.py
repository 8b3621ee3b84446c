"""Training that can be stopped at any moment: continued or not, the same seed gives the same weights."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pytest_defuse.runtime.cache import cached_weights, read_tensors, write_tensors
from pytest_defuse.runtime.determinism import random_numbers, seeded
from pytest_defuse.runtime.progress import Progress

SAVE_EVERY = 60.0
"""Seconds between two states on disk: what an interruption costs at most."""


@dataclass(frozen=True)
class Schedule:
    """Steps of Adam (AdamW with ``weight_decay``), with a constant rate or one that rises and falls.

    Attributes:
        steps: optimiser steps.
        rate: the largest learning rate.
        falling: rise over the first tenth of the steps, then fall to 0 along a cosine; else constant.
    """

    steps: int
    rate: float
    weight_decay: float = 0.0
    falling: bool = True

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if not self.falling:
            return self.rate
        rise = min(1.0, 10 * (step + 1) / self.steps)
        return self.rate * rise * (1 + math.cos(math.pi * step / self.steps)) / 2


def train_once(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    file: Path,
    *,
    seed: int,
    progress: Progress,
    title: str,
) -> None:
    """Fill ``network``, which lies on its device, from ``file``; or train it by ``loss`` and write the file.

    A run that was stopped goes on from a state beside the file, at most a minute old. On a CPU, with the same
    number of threads, it ends with the very bits of one that was not stopped, because the random numbers of a
    step belong to (seed, step); on a GPU the two are equal up to rounding.

    Args:
        loss: the loss of a step, counted from 0; it may use torch's global random numbers.

    Raises:
        DefuseError: the folder of ``file`` cannot be written to.
    """
    state = file.with_suffix(".state")
    with seeded(seed):
        cached_weights(network, file, partial(_train, network, loss, schedule, state, seed, progress, title))
    state.unlink(missing_ok=True)


def _train(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    state: Path,
    seed: int,
    progress: Progress,
    title: str,
) -> None:
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay)
    start = _restore(network, optimizer, state)
    if not start:
        _save(network, optimizer, state, 0)  # a folder that cannot be written to is found now, not in the end
    saved = time.monotonic()
    with progress.task(title, schedule.steps) as advance:
        if start:
            advance(start, "continued")
        for step in range(start, schedule.steps):
            torch.manual_seed(int(random_numbers(seed, step).integers(2**63)))
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate_at(step)
            value = loss(step)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if time.monotonic() - saved > SAVE_EVERY:
                _save(network, optimizer, state, step + 1)
                saved = time.monotonic()
            advance(1, f"loss {value.item():.3g}")


def _save(network: nn.Module, optimizer: torch.optim.Optimizer, state: Path, step: int) -> None:
    """The weights, Adam's moments and the number of steps done, in one file that holds no code."""
    moments = {
        f"optimizer.{number}.{name}": value
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    write_tensors({**weights, **moments, "step": torch.tensor(step)}, state)


def _restore(network: nn.Module, optimizer: torch.optim.Optimizer, state: Path) -> int:
    """Continue from a saved state, where there is one; returns the number of steps done."""
    tensors = read_tensors(state)
    if tensors is None:
        return 0
    network.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("network.")})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            like = parameters[int(number)]
            # In the memory layout of the parameter, or the sums of the next step could differ in their last bit.
            kept = value if name == "step" else torch.empty_like(like).copy_(value)
            moments.setdefault(int(number), {})[name] = kept
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(tensors["step"])
