import errno
import json
import os
import random
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from pytest_defuse.runtime import cache, training
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.state_files import read_state, write_state
from pytest_defuse.runtime.training import Schedule, Training, train_once
from tests.recorder import Recorder, interrupted_at

SCHEDULE = Schedule(steps=12, learning_rate=1e-2, weight_decay=1e-2)


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


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EROFS])
def test_a_finished_training_is_read_from_a_read_only_disk(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(path: Path, missing_ok: bool = False) -> None:
        if code != errno.ENOENT or not missing_ok:  # Linux answers EROFS for a missing file too
            raise OSError(code, os.strerror(code), str(path))

    first = trained(tmp_path)
    monkeypatch.setattr(Path, "unlink", unlink)
    progress = Recorder()
    assert same(first, trained(tmp_path, progress=progress))
    assert progress.done == 0


@pytest.mark.parametrize("after", [1, 5, 12])
def test_an_interrupted_training_resumes_and_gives_the_same_bits(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "a", progress=interrupted_at(after))
    resumed = Recorder()
    weights = trained(tmp_path / "a", progress=resumed)
    assert same(weights, trained(tmp_path / "b"))
    assert resumed.done == SCHEDULE.steps  # those done before count as done


def test_what_was_done_before_the_interruption_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, progress=interrupted_at(5))
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
    progress = Recorder()
    assert same(trained(tmp_path, progress=progress), first)
    assert progress.done == 0


@pytest.mark.parametrize("leftover", ["damaged", "older version", "pickle"])
def test_a_state_that_cannot_be_read_is_reported_and_training_starts_again(
    leftover: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "net.state"
    if leftover == "damaged":
        state.write_bytes(b"half a st")
    elif leftover == "older version":
        save_file({"network.0.weight": torch.zeros(8, 1, 3, 3), "step": torch.tensor(5)}, state)
    else:
        torch.save(Trap(), state)
    progress = Recorder()
    assert same(trained(tmp_path, progress=progress), trained(tmp_path / "other"))
    (sentence,) = progress.sentences
    assert sentence == f"training restarts from step 0: its state {state} is damaged or from another version"
    assert not Path("sprung").exists()


def rewritten(state: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors in a file, and keep its metadata with the checksum."""
    with safe_open(state, "pt") as file:
        names, metadata = file.keys(), file.metadata()
        tensors = {name: file.get_tensor(name) for name in names}
    change(tensors)
    save_file(tensors, state, metadata)


def flip_a_bit(tensors: dict[str, Tensor]) -> None:
    tensors["0"].view(torch.uint8).view(-1)[0] ^= 1


def without_a_moment(tensors: dict[str, Tensor]) -> None:
    """Remove the last tensor of the optimizer's state from the nesting too."""
    structure = json.loads(bytes(tensors["structure"].tolist()))
    optimizer = next(value for key, value in structure["dict"] if key == "optimizer")
    entries = next(value for key, value in optimizer["dict"] if key == "state")["dict"]
    entries[-1][1]["dict"].pop()
    tensors["structure"] = torch.frombuffer(bytearray(json.dumps(structure).encode()), dtype=torch.uint8)


def without(*path: str) -> Callable[[Path], None]:
    """Remove an entry, and write the rest with a valid checksum, as another version of this package could have."""

    def damage(state: Path) -> None:
        values = found = read_state(state)
        for key in path[:-1]:
            found = found[key]
        del found[path[-1]]
        write_state(values, state)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: rewritten(state, lambda tensors: tensors.pop("3")),
        lambda state: rewritten(state, flip_a_bit),
        lambda state: rewritten(state, without_a_moment),
        without("optimizer"),
        without("optimizer", "param_groups"),
        without("network", "5.bias"),
        without("step"),
        lambda state: write_state([1], state),
    ],
    ids=[
        "a lacking tensor",
        "a flipped bit",
        "an entry of the optimizer",
        "no optimizer",
        "half an optimizer",
        "a lacking weight",
        "no step",
        "a list",
    ],
)
def test_a_damaged_state_is_refused_whole(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, progress=interrupted_at(5))
    state = tmp_path / "net.state"
    damage(state)
    progress = Recorder()
    assert same(trained(tmp_path, progress=progress), trained(tmp_path / "other"))
    assert progress.sentences == [
        f"training restarts from step 0: its state {state} is damaged or from another version"
    ]
    assert progress.notes[0] != "resumed"


def test_a_full_disk_in_the_middle_is_one_sentence_and_the_training_before_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    saved: list[Path] = []

    def save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        saved.append(path)
        if len(saved) == 6:  # the empty state, and those of five steps
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save_file(tensors, path, metadata)

    monkeypatch.setattr(cache, "save_file", save)
    with pytest.raises(DefuseError, match=r"net\.state cannot be written .*: free disk space, .*Finished work is kept"):
        trained(tmp_path)
    resumed = Recorder()
    assert same(trained(tmp_path, progress=resumed), trained(tmp_path / "other"))
    assert resumed.notes[0] == "resumed"


def test_a_cache_that_is_deleted_in_the_middle_does_not_change_the_result(tmp_path: Path) -> None:
    def delete(done: int) -> None:
        if done == 5:
            shutil.rmtree(tmp_path / "cache")

    assert same(trained(tmp_path / "cache", progress=Recorder(delete)), trained(tmp_path / "other"))


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def optimized(folder: Path, kind: type[Optimizer], progress: Recorder, *, half: bool = False) -> dict[str, Tensor]:
    """Train with an optimizer that a user brings; the inputs are drawn with Python's and numpy's random numbers."""
    net, steps = network(), 6

    def gradients(step: int) -> Tensor:
        images = torch.full((4, 1, 8, 8), random.random()) + torch.rand(4, 1, 8, 8) * float(np.random.rand())
        value = net(images.to(net[0].weight.dtype)).float().square().mean()
        value.backward()
        return value

    masters = []
    if half:
        net = net.bfloat16()
        masters = [(parameter, parameter.detach().float().requires_grad_()) for parameter in net.parameters()]
    optimizer = kind([master for _, master in masters] if half else net.parameters(), lr=1e-3)
    work = Training(net, optimizer, gradients, lambda step: 1e-3, 0, "training", folder / "net.state", masters)
    with seeded(0), progress.task("", steps) as advance:
        work.run(steps, advance, progress.say)
    return net.state_dict()


class Momentum(torch.optim.SGD):
    """Keeps plain values of every kind in its state, as an optimizer of a user's own may."""

    def step(self, closure: None = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            own = self.state[parameter]
            count, history = own.setdefault("seen", (0, []))
            history = [*history, parameter.grad.mean()][-2:]
            own["seen"] = (count + 1, history)
            own["scale"] = {"best": float(min(history)), "name": None}
            parameter.grad *= 1 + count
            parameter.grad += history[0] + own["scale"]["best"]
        super().step()


class Queue(torch.optim.SGD):
    """Keeps an object in its state that is neither a tensor nor plain."""

    def step(self, closure: None = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter].setdefault("queue", deque(maxlen=2)).append(parameter.grad.clone())
            parameter.grad += self.state[parameter]["queue"][0]
        super().step()


@pytest.mark.parametrize("half", [False, True], ids=["float32", "masters"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, Momentum, Queue])
def test_any_optimizer_gives_the_same_bits_after_an_interruption(
    kind: type[Optimizer], half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        optimized(tmp_path, kind, interrupted_at(4), half=half)
    resumed = Recorder()
    weights = optimized(tmp_path, kind, resumed, half=half)
    assert same(weights, optimized(tmp_path / "whole", kind, Recorder(), half=half))
    assert resumed.done == 6
    if kind is Queue:
        assert resumed.notes[0] != "resumed"
        assert resumed.sentences == ["training restarts from step 0: a collections.deque in its state cannot be stored"]
    else:
        assert resumed.notes[0] == "resumed"
        assert resumed.sentences == []


def test_a_loss_that_is_nan_is_reported_and_not_stored(tmp_path: Path) -> None:
    net = network()
    with pytest.raises(DefuseError, match="The loss is NaN at step 3 of training: lower the learning rate"):
        train_once(
            net,
            lambda step: net(torch.rand(1, 1, 8, 8)).sum() * (float("nan") if step == 2 else 1.0),
            SCHEDULE,
            tmp_path / "net.safetensors",
            seed=0,
            progress=Progress(),
            title="training",
        )
    assert not (tmp_path / "net.safetensors").exists()


def test_the_seed_decides(tmp_path: Path) -> None:
    assert not same(trained(tmp_path / "a"), trained(tmp_path / "b", seed=1))


def test_a_folder_that_cannot_be_written_to_is_found_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    progress = Recorder()
    with pytest.raises(DefuseError, match=r"file/net\.safetensors cannot be written .*--defuse-cache"):
        trained(tmp_path / "file", progress=progress)
    assert progress.done == 0


@given(st.integers(1, 10_000), st.floats(1e-5, 1.0), st.data())
def test_the_learning_rate_stays_within_its_range(steps: int, rate: float, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < Schedule(steps, rate).at(step) <= rate
    assert Schedule(steps, rate, falling=False).at(step) == rate
