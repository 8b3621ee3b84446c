import os

import pytest
import torch

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.devices import device_named, share_threads, trains_in_bfloat16


def test_cpu_is_always_available() -> None:
    assert device_named("cpu") == torch.device("cpu")


def test_auto_is_a_gpu_if_there_is_one() -> None:
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    assert (device_named("auto").type != "cpu") == has_gpu


@pytest.mark.parametrize("name", ["", "gpu", "cuda:999", "cpu:x", "CPU"])
def test_a_missing_device_is_refused(name: str) -> None:
    with pytest.raises(DefuseError, match=f"--defuse-device={name} cannot be used on this machine: give"):
        device_named(name)


@pytest.mark.parametrize(("workers", "threads"), [(0, []), (1, []), (2, [4]), (3, [2]), (100, [1])])
def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch, workers: int, threads: list[int]) -> None:
    set_threads: list[int] = []
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", set_threads.append)
    share_threads(workers)
    assert set_threads == threads


@pytest.mark.parametrize(("worker", "device"), [(0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")])
def test_workers_share_the_gpus(monkeypatch: pytest.MonkeyPatch, worker: int, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *arguments, **keywords: None)
    assert device_named("auto", worker) == device_named("cuda", worker) == torch.device(device)
    assert device_named("cuda:1", worker) == torch.device("cuda:1")


def test_bfloat16_is_used_on_devices_with_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert trains_in_bfloat16("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    assert not trains_in_bfloat16(torch.device("cpu"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not trains_in_bfloat16("cpu")
    assert not trains_in_bfloat16("mps")
