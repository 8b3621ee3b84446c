"""The training loop: resumable, and seeded in each step. Resumed or not, the same seed gives the same weights."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pytest_defuse.runtime.cache import NO_OUTPUTS, Tensors, cached_weights
from pytest_defuse.runtime.determinism import derived_seed, seed_all, seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.state_files import read_state, write_state

SAVE_EVERY = 60.0
"""Seconds between two states on disk, which is the most work that an interruption loses. Our choice."""


@dataclass(frozen=True)
class Schedule:
    """Steps of AdamW with a learning rate that is constant, or rises and falls.

    Attributes:
        steps: optimizer steps.
        learning_rate: the largest one.
        falling: warm up over the first tenth of the steps, then fall to 0 along a cosine (Loshchilov and Hutter 2017,
            SGDR); else constant.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.0
    falling: bool = True

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if not self.falling:
            return self.learning_rate
        warmup = min(1.0, 10 * (step + 1) / self.steps)
        return self.learning_rate * warmup * (1 + math.cos(math.pi * step / self.steps)) / 2


def train_once(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    file: Path | None,
    *,
    seed: int,
    progress: Progress,
    title: str,
    outputs: Tensors = NO_OUTPUTS,
) -> None:
    """Load the weights of ``network`` from ``file``, or train it and write them.

    An interrupted training resumes from a state next to the file, at most a minute old (see :class:`Training`).

    Args:
        network: on the device where it trains.
        loss: step, counted from 0 -> scalar loss; it may use the global random numbers.
        file: safetensors; None trains without any file.
        title: names the training in progress and messages.
        outputs: of models that the loss depends on; see :func:`pytest_defuse.runtime.cache.read_tensors`.

    Raises:
        DefuseError: the folder of ``file`` cannot be written to, or the loss is NaN.
    """

    def gradients(step: int) -> Tensor:
        value = loss(step)
        value.backward()
        return value

    def fit() -> None:
        network.train()
        optimizer = AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
        training = Training(network, optimizer, gradients, schedule.at, seed, title, state, outputs=outputs)
        with progress.task(title, schedule.steps) as advance:
            training.run(schedule.steps, advance, progress.say)

    state = file and file.with_suffix(".state")
    with seeded(seed, device_of(network)):
        if file is None:
            fit()
        else:
            cached_weights(network, file, fit, progress.say, outputs)
    if state:
        with suppress(OSError):  # it is not there, or the disk is read-only
            state.unlink()


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's parameters; the CPU for a network without any."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Training:
    """A training whose random numbers depend only on (seed, step), with its state on disk.

    On a CPU, with the same number of threads, an interrupted training is bit-identical to one that was not interrupted;
    on a GPU the two are equal up to rounding.

    Attributes:
        gradients: step, counted from 0 -> scalar loss; adds to the parameters' gradients, which are empty before.
        masters: (parameter of 16 bits, its float32 copy) pairs; the optimizer updates the copies, because Adam's steps
            are smaller than the precision of 16 bits (Micikevicius et al. 2018, section 3.1).
        outputs: as in :func:`train_once`.
    """

    network: nn.Module
    optimizer: Optimizer
    gradients: Callable[[int], Tensor]
    learning_rate: Callable[[int], float]
    seed: int
    title: str
    state: Path | None = None
    masters: Sequence[tuple[nn.Parameter, Tensor]] = ()
    outputs: Tensors = field(default_factory=dict)

    def run(self, steps: int, advance: Callable[[int, str], object], say: Callable[[str], object]) -> None:
        """Train until ``steps`` steps are done, from the state on disk if there is one.

        Raises:
            DefuseError: the loss is NaN, or the state cannot be written.
        """
        start = self._restore(steps, say)
        if start:
            advance(start, "resumed")
        elif self.state:
            write_state({}, self.state, self.outputs)  # a folder that cannot be written to is reported before any work
        saved, device = time.monotonic(), device_of(self.network)
        for step in range(start, steps):
            seed_all(derived_seed(self.seed, step, 63), device)
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
            self.network.zero_grad(set_to_none=True)
            loss = self.gradients(step)
            for parameter, master in self.masters:
                master.grad = None if parameter.grad is None else parameter.grad.float()
            self.optimizer.step()
            for parameter, master in self.masters:
                parameter.data.copy_(master)
            if math.isnan(value := loss.item()):
                raise DefuseError(
                    f"The loss is NaN at step {step + 1} of {self.title}: lower the learning rate, or check the loss "
                    "and Subject(normalize=...)."
                )
            if self.state and (step + 1 == steps or time.monotonic() - saved > SAVE_EVERY):
                self._save(step + 1, self.state)
                saved = time.monotonic()
            advance(1, f"loss {value:.3g}")

    def _save(self, step: int, state: Path) -> None:
        try:
            write_state(self._values(step), state, self.outputs)
        except TypeError as error:
            write_state({"refused": str(error)}, state, self.outputs)

    def _restore(self, steps: int, say: Callable[[str], object]) -> int:
        """Load the state on disk unless it is past ``steps``; returns the number of steps done."""
        if self.state is None or not self.state.exists():
            return 0
        saved = read_state(self.state, self.outputs)
        if saved == {}:  # interrupted before the first state
            return 0
        if isinstance(saved, dict) and "refused" in saved:
            say(f"{self.title} restarts from step 0: a {saved['refused']} in its state cannot be stored")
            return 0
        start = copy.deepcopy(self._values(0))
        try:
            if not 0 <= saved["step"] <= steps:
                return 0
            self._load(saved)
            for group in self.optimizer.param_groups:  # a step shows whether the optimizer can use its state
                for parameter in group["params"]:
                    parameter.grad = torch.zeros_like(parameter)
            self.optimizer.step()
            self.optimizer.state_dict()
            self._load(read_state(self.state, self.outputs))
            return int(saved["step"])
        except Exception:  # PyTorch raises many kinds of errors for the state of something else
            self._load(start)  # a part of the state may have been loaded
            say(f"{self.title} restarts from step 0: its state {self.state} is damaged or from another version")
            return 0

    def _values(self, step: int) -> dict[str, Any]:
        """The state after a number of steps."""
        return {
            "step": step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "masters": [master for _, master in self.masters],
        }

    @torch.no_grad()
    def _load(self, values: dict[str, Any]) -> None:
        self.network.load_state_dict(values["network"])
        self.optimizer.load_state_dict(values["optimizer"])
        for (_, master), value in zip(self.masters, values["masters"], strict=True):
            master.copy_(value)
