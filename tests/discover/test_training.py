from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_defuse.discover import training
from pytest_defuse.discover.training import Schedule, train_once
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Advance, Progress

SCHEDULE = Schedule(steps=12, rate=1e-2, weight_decay=1e-2)


class Stopping(Progress):
    """Counts steps, and interrupts the work after so many."""

    def __init__(self, after: int = 10**6) -> None:
        self.after, self.steps = after, 0

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        def count(steps: int, note: str = "") -> None:
            self.steps += steps
            if self.steps == self.after:
                raise KeyboardInterrupt

        yield count


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(288, 2))
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def loss_of(net: nn.Module) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        images = torch.rand(4, 1, 8, 8)
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(net(images).float(), images.mean(dim=(1, 2, 3)).gt(0.5).long())

    return loss


def trained(folder: Path, *, seed: int = 0, progress: Progress | None = None) -> dict[str, Tensor]:
    net = network()
    file = folder / "net.safetensors"
    train_once(net, loss_of(net), SCHEDULE, file, seed=seed, progress=progress or Progress(), title="training")
    return net.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("after", [1, 5, 12])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_bits(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "a", progress=Stopping(after))
    resumed = Stopping()
    weights = trained(tmp_path / "a", progress=resumed)
    assert same(weights, trained(tmp_path / "b"))
    assert resumed.steps == SCHEDULE.steps  # those done before count as done


def test_what_was_done_before_the_interruption_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, progress=Stopping(5))
    steps: list[int] = []
    net = network()
    loss = loss_of(net)

    def noted(step: int) -> Tensor:
        steps.append(step)
        return loss(step)

    train_once(net, noted, SCHEDULE, tmp_path / "net.safetensors", seed=0, progress=Progress(), title="")
    assert steps == list(range(5, 12))


def test_nothing_but_the_weights_stays_behind(tmp_path: Path) -> None:
    first = trained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".gitignore", "net.safetensors"]
    progress = Stopping()
    assert same(trained(tmp_path, progress=progress), first)
    assert progress.steps == 0


def test_a_damaged_state_is_started_afresh(tmp_path: Path) -> None:
    (tmp_path / "net.state").write_bytes(b"half a st")
    assert same(trained(tmp_path), trained(tmp_path / "other"))


def test_the_seed_decides(tmp_path: Path) -> None:
    assert not same(trained(tmp_path / "a"), trained(tmp_path / "b", seed=1))


def test_a_folder_that_cannot_be_written_to_is_found_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    progress = Stopping()
    with pytest.raises(DefuseError, match=r"file/net\.state cannot be written .* another folder with --defuse-cache"):
        trained(tmp_path / "file", progress=progress)
    assert progress.steps == 0


@given(st.integers(1, 10_000), st.floats(1e-5, 1.0), st.data())
def test_the_rate_stays_within_its_bounds(steps: int, rate: float, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < Schedule(steps, rate).rate_at(step) <= rate
    assert Schedule(steps, rate, falling=False).rate_at(step) == rate
