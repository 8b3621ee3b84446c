import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.batches import BATCH_MULTIPLE, BatchRunner


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("size", [32, 64, 256])
def test_each_row_gets_its_result(count: int, size: int) -> None:
    rows = torch.arange(count).float()[:, None]
    assert torch.equal(BatchRunner(size, BATCH_MULTIPLE)(lambda batch: batch * 2, rows), rows * 2)


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16])
def test_a_row_s_bits_do_not_depend_on_its_batch(fast: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 100, 10)).requires_grad_(False)
    images = torch.rand(200, 1, 12, 12)
    with torch.autocast("cpu", fast, enabled=fast != torch.float32):
        expected = BatchRunner(64, BATCH_MULTIPLE)(layers, images)
        for size in (32, 128, 512):
            assert torch.equal(BatchRunner(size, BATCH_MULTIPLE)(layers, images), expected)
        order = torch.randperm(200)
        assert torch.equal(BatchRunner(64, BATCH_MULTIPLE)(layers, images[order]), expected[order])
        assert torch.equal(BatchRunner(64, BATCH_MULTIPLE)(layers, images[:5]), expected[:5])


class Memory:
    """A device with memory for a number of rows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.refused = 0

    def __call__(self, batch: Tensor) -> Tensor:
        if len(batch) > self.rows:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch


def test_batches_are_halved_when_memory_runs_out_and_keep_that_size() -> None:
    batches, memory = BatchRunner(512), Memory(100)
    rows = torch.arange(1000)
    assert torch.equal(batches(memory, rows), rows)
    assert (batches.size, memory.refused) == (64, 3)
    assert torch.equal(batches(memory, rows), rows)
    assert memory.refused == 3


def test_a_device_with_too_little_memory_is_one_sentence() -> None:
    with pytest.raises(DefuseError, match="ran out of memory with a batch size of 32:"):
        BatchRunner(multiple_of=BATCH_MULTIPLE)(Memory(31), torch.arange(1000))
    with pytest.raises(DefuseError, match="ran out of memory with a batch size of 1:"):
        BatchRunner()(Memory(0), torch.arange(1000))
