import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.batches import GRANULE, Batches


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("size", [32, 64, 256])
def test_each_row_gets_its_result(count: int, size: int) -> None:
    rows = torch.arange(count).float()[:, None]
    assert torch.equal(Batches(size, GRANULE)(lambda some: some * 2, rows), rows * 2)


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16])
def test_a_row_s_bits_do_not_depend_on_its_batch(fast: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 100, 10)).requires_grad_(False)
    images = torch.rand(200, 1, 12, 12)
    with torch.autocast("cpu", fast, enabled=fast != torch.float32):
        expected = Batches(64, GRANULE)(layers, images)
        for size in (32, 128, 512):
            assert torch.equal(Batches(size, GRANULE)(layers, images), expected)
        order = torch.randperm(200)
        assert torch.equal(Batches(64, GRANULE)(layers, images[order]), expected[order])
        assert torch.equal(Batches(64, GRANULE)(layers, images[:5]), expected[:5])


class Memory:
    """A device that holds so many rows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.refused = 0

    def __call__(self, some: Tensor) -> Tensor:
        if len(some) > self.rows:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return some


def test_batches_are_halved_when_memory_runs_out_and_stay_so() -> None:
    batches, memory = Batches(512), Memory(100)
    rows = torch.arange(1000)
    assert torch.equal(batches(memory, rows), rows)
    assert (batches.size, memory.refused) == (64, 3)
    assert torch.equal(batches(memory, rows), rows)
    assert memory.refused == 3


def test_a_device_without_memory_is_told_in_one_sentence() -> None:
    with pytest.raises(DefuseError, match="too little memory for a batch of 32 images"):
        Batches(granule=GRANULE)(Memory(31), torch.arange(1000))
    with pytest.raises(DefuseError, match="too little memory for a batch of 1 images"):
        Batches()(Memory(0), torch.arange(1000))
