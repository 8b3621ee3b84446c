import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from pytest_defuse.runtime.determinism import (
    Stream,
    _float32_settings,
    derived_seed,
    full_float32,
    random_numbers,
    seeded,
)

seeds = st.integers(0, 2**64)
streams = st.tuples(st.sampled_from(Stream), st.integers(0, 2**40), st.integers(0, 2**40))


def states() -> tuple[object, ...]:
    """Where the three global generators stand."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tolist(), *rest), torch.get_rng_state().tolist()


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


@given(seeds)
def test_a_seed_fixes_all_three_generators(seed: int) -> None:
    with seeded(seed):
        first = draw()
    with seeded(seed):
        assert draw() == first
    with seeded(seed + 1):
        assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_states_are_restored() -> None:
    before = states()
    with seeded(3), seeded(4):
        draw()
    assert states() == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_states_are_restored_after_an_error(error: type[BaseException]) -> None:
    before = states()
    with pytest.raises(error), seeded(3):
        raise error(draw())
    assert states() == before


def test_states_are_restored_when_the_seed_is_refused() -> None:
    before = states()
    with pytest.raises(TypeError), seeded("seven"):
        pass
    assert states() == before


@given(seeds, streams)
def test_random_numbers_depend_on_seed_and_stream_only(seed: int, stream: tuple[int, ...]) -> None:
    numbers = random_numbers(seed, *stream).standard_normal(8)
    before = states()
    random_numbers(seed + 1, *stream).standard_normal(5)
    draw()
    with seeded(seed):
        again = random_numbers(seed, *stream)
        # Neither the global generators nor the size of a request changes what comes.
        np.testing.assert_array_equal(np.append(again.standard_normal(3), again.standard_normal(5)), numbers)
    assert states() != before


@given(seeds, seeds, streams, streams)
def test_other_seeds_and_streams_give_other_numbers(a: int, b: int, one: tuple[int, ...], two: tuple[int, ...]) -> None:
    assume((a, one) != (b, two))
    assert not set(random_numbers(a, *one).random(64)) & set(random_numbers(b, *two).random(64))


@pytest.mark.parametrize("position", [0, 1, 2])
def test_neighbouring_streams_never_overlap(position: int) -> None:
    streams = [[0, 0, 0] for _ in range(10)]
    for number, stream in enumerate(streams):
        stream[position] = list(Stream)[number] if position == 0 else number
    numbers = np.stack([random_numbers(0, *stream).random(2000) for stream in streams])
    assert len(np.unique(numbers)) == numbers.size
    assert np.abs(np.corrcoef(numbers) - np.eye(10)).max() < 0.1


def test_derived_seeds_differ_by_seed_and_number_and_fit_their_bits() -> None:
    seeds = {derived_seed(seed, number, 63) for seed in range(10) for number in range(10)}
    assert len(seeds) == 100
    assert max(seeds) > 2**60
    assert all(derived_seed(0, number, 32) < 2**32 for number in range(100))


def test_a_stream_has_at_most_three_numbers() -> None:
    with pytest.raises(TypeError):
        random_numbers(0, 1, 2, 3, 4)


class Accelerators:
    """Two GPUs, of which only the random numbers exist; records which are touched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states, self.current, self.touched = {0: torch.tensor([10]), 1: torch.tensor([11])}, 0, set[int]()
        monkeypatch.setattr(torch.cuda, "device", self.device)
        monkeypatch.setattr(torch.cuda, "manual_seed", self.manual_seed)
        monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds every GPU"))
        monkeypatch.setattr(torch.cuda, "get_rng_state", self.get_rng_state)
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.set_rng_state)

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device.index
        yield
        self.current = before

    def manual_seed(self, seed: int) -> None:
        self.set_rng_state(torch.tensor([seed]), torch.device("cuda", self.current))

    def get_rng_state(self, device: torch.device) -> Tensor:
        self.touched.add(device.index)
        return self.states[device.index]

    def set_rng_state(self, state: Tensor, device: torch.device) -> None:
        self.touched.add(device.index)
        self.states[device.index] = state


def test_only_the_device_in_use_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Accelerators(monkeypatch)
    with seeded(7):
        assert gpus.touched == set()
    with seeded(7, "cuda:1"):
        assert gpus.states[1].item() == 7
    assert gpus.touched == {1}
    assert gpus.states[1].item() == 11


def test_the_random_numbers_of_mps_are_seeded_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.tensor([5])]
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: states.append(torch.tensor([seed])))
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", states.append)
    with seeded(7, "mps"):
        assert states[-1].item() == 7
    assert states[-1].item() == 5


def allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed


def newer_setting(precision: str) -> None:
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("torch >= 2.9")
    torch.backends.cudnn.conv.fp32_precision = precision


@pytest.mark.parametrize(
    "outside",
    [
        lambda: allow_tf32(True),
        lambda: allow_tf32(False),
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: newer_setting("ieee"),
    ],
    ids=["TF32", "no TF32", "medium", "newer setting"],
)
def test_float32_is_computed_in_full_inside_the_block_only(outside: Callable[[], None]) -> None:
    def values() -> list[object]:
        found: list[object] = []
        for read, _, _ in _float32_settings():
            with suppress(RuntimeError):  # torch refuses to read the older setting after the newer one was set
                found.append(read())
        return found

    default = [(write, read()) for read, write, _ in _float32_settings()]
    outside()
    try:
        before = values()
        with full_float32():
            assert values() == [full for _, _, full in _float32_settings()]
        assert values() == before
        with pytest.raises(ValueError, match="inside"), full_float32():
            raise ValueError("inside")
        assert values() == before
    finally:
        for write, value in default:
            write(value)
