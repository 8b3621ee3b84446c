"""How draws are computed: the precision, the memory format and the batches, and which of them are fastest."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pytest_defuse.discover.generator import TrainedVAE
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.batches import BATCH_MULTIPLE, BatchRunner
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16

CPU_BATCH_SIZES = (64, 128, 256, 512)
"""Candidates for the batch size. Measured on 2 cores: 128 was fastest for a bare loop in bfloat16 (6,600 draws/s);
1,024 took nearly twice as long."""
GPU_BATCH_SIZES = (1024, 2048, 4096, 8192)
"""Candidates on a GPU, which smaller batches leave idle. Our choice."""
TRIAL_SECONDS = 0.15
"""How long each candidate is timed: the trials together take a second or two. Our choice."""


@dataclass(frozen=True)
class Compute:
    """How draws are screened: the type of autocast, the format of the classifiers' weights, and images per batch."""

    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format
    batch_size: int = 256

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context that computes in ``dtype`` on the device."""
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def batches(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The rows of a tensor, ``batch_size`` at a time."""
        return torch.split(rows, self.batch_size)

    def set_up(self, networks: Iterable[Classifier | TrainedVAE]) -> None:
        """Set the batches of networks, and the memory format of classifiers; a generator keeps its own."""
        for network in networks:
            if isinstance(network, Classifier):
                network.module.to(memory_format=self.memory_format)
            network.batches = BatchRunner(self.batch_size, BATCH_MULTIPLE)


def fastest(device: torch.device, trial: Callable[[Compute], Callable[[], object]]) -> Compute:
    """The fastest way to compute on a device.

    Type and memory format affect rounding, so they are not timed: they are the best that device and model support. The
    results do not depend on the batch size, so that is timed.

    Args:
        trial: returns a function that computes one batch. A RuntimeError or DefuseError in either means that the model
            does not support this compute.
    """
    best = torch.bfloat16 if trains_in_bfloat16(device) else torch.float32
    preferred = (Compute(best, torch.channels_last), Compute(best), Compute())
    supported = next((compute for compute in preferred if _rows_per_second(compute, trial)), Compute())
    sizes = CPU_BATCH_SIZES if device.type == "cpu" else GPU_BATCH_SIZES
    candidates = (replace(supported, batch_size=size) for size in sizes)
    return max(candidates, key=lambda compute: _rows_per_second(compute, trial))


def _rows_per_second(compute: Compute, trial: Callable[[Compute], Callable[[], object]]) -> float:
    """The measured speed; 0 if the model does not support ``compute``."""
    try:
        run = trial(compute)
        run()
        start, rounds = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < TRIAL_SECONDS or rounds < 2:
            run()
            rounds += 1
    except (RuntimeError, DefuseError):  # for example .view() on channels_last features, or NaN in bfloat16
        return 0.0
    return rounds * compute.batch_size / seconds
