"""Devices, and whether training on them uses bfloat16."""

import os

import torch

from pytest_defuse.runtime.errors import DefuseError


def device_named(name: str, worker: int = 0) -> torch.device:
    """The device of a name: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Args:
        worker: number of this process in the session, from 0; ``auto`` and ``cuda`` assign the visible GPUs to
            processes in turn.

    Raises:
        DefuseError: the machine does not have the device.
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
            f"--defuse-device={name} cannot be used on this machine: give auto, cpu, cuda, cuda:N or mps."
        ) from error
    return device


def trains_in_bfloat16(device: torch.device | str) -> bool:
    """Whether convolutions are faster in bfloat16: on GPUs and CPUs that have instructions for it."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # torch 2.4 lacks it
        return False
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))


def share_threads(workers: int) -> None:
    """Use this process's share of the CPU cores, if there are several; a single process keeps torch's default."""
    if workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
