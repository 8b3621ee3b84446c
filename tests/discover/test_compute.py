from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pytest_defuse.discover import compute as module
from pytest_defuse.discover.compute import Compute, fastest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only :func:`chosen` moves, on a CPU that is fast in bfloat16."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "trains_in_bfloat16", lambda device: True)
    return clock


def chosen(clock: SimpleNamespace, supports: Callable[[Compute], bool]) -> Compute:
    """The fastest compute of a model whose batches all take the same time, but those of 128 images a third of it."""

    def trial(compute: Compute) -> Callable[[], object]:
        def run() -> None:
            clock.now += 1 if compute.batch_size == 128 else 3

        if not supports(compute):
            raise RuntimeError
        return run

    return fastest(torch.device("cpu"), trial)


def test_the_batch_size_is_that_of_the_most_rows_per_second(clock: SimpleNamespace) -> None:
    best = Compute(torch.bfloat16, torch.channels_last, 512)
    assert chosen(clock, lambda compute: True) == best
    assert chosen(clock, lambda compute: compute.batch_size != 512) == replace(best, batch_size=128)


def test_type_and_memory_format_are_the_best_that_the_model_supports(clock: SimpleNamespace) -> None:
    for supports, dtype in (
        (lambda compute: compute.memory_format == torch.contiguous_format, torch.bfloat16),
        (lambda compute: compute.dtype == torch.float32, torch.float32),
        (lambda compute: False, torch.float32),
    ):
        best = chosen(clock, supports)
        assert (best.dtype, best.memory_format) == (dtype, torch.contiguous_format)


def test_only_a_fast_type_is_autocast() -> None:
    ones = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with Compute(dtype).autocast(torch.device("cpu")):
            assert (ones @ ones).dtype == dtype


def test_batches_are_the_rows_in_order() -> None:
    batches = Compute(batch_size=4).batches(torch.arange(10))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.equal(torch.cat(batches), torch.arange(10))
