"""Where models compute, and in which type."""

import os

import torch

from pytest_defuse.runtime.errors import DefuseError


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


def trains_in_bfloat16(device: torch.device | str) -> bool:
    """Whether convolutions are faster in bfloat16: on GPUs that have it, and CPUs with instructions for it."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # newer than the oldest torch that will do
        return False
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))


def share_threads(workers: int) -> None:
    """Give each of ``workers`` processes its share of the CPU's cores; alone, torch's own choice stands."""
    if workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
