"""Where models compute."""

import os

import torch

from pytest_defuse.errors import DefuseError


def device_named(name: str, worker: int = 0) -> torch.device:
    """``auto`` (a GPU when there is one), ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` as a device.

    Args:
        worker: number of this process among those of the session; ``auto`` and ``cuda`` deal the visible
            GPUs out to them in turn.

    Raises:
        DefuseError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and torch.cuda.device_count() > 1:
        name = f"cuda:{worker % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DefuseError(
            f"--defuse-device is {name!r}, which cannot be used on this machine: give auto, cpu, cuda, cuda:N or mps."
        ) from error
    return device


def share_threads(workers: int) -> None:
    """Give each of ``workers`` processes its share of the CPU's cores; alone, torch's own choice stands."""
    if workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
