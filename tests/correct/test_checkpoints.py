import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model
from torch import Tensor, nn

import pytest_defuse.correct.checkpoints as checkpoints
from pytest_defuse.correct.checkpoints import (
    attempt_path,
    check_output,
    corrected_path,
    save_checkpoint,
)
from pytest_defuse.runtime.errors import DefuseError


class Tied(nn.Module):
    """An encoder and a decoder that share one weight, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 3, bias=False)
        self.decoder = nn.Linear(4, 3, bias=False)
        self.decoder.weight = self.encoder.weight
        self.register_buffer("seen", torch.tensor(7))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.encoder(inputs) + self.decoder(inputs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "digits.defused.safetensors"


@pytest.mark.parametrize(
    ("checkpoint", "corrected"),
    [
        ("digits.safetensors", "digits.defused.safetensors"),
        ("digits.pt", "digits.defused.safetensors"),
        ("models/digits.v2.pth", "models/digits.v2.defused.safetensors"),
        (Path("/models/digits"), "/models/digits.defused.safetensors"),
        ("runs/digits.2024-05", "runs/digits.2024-05.defused.safetensors"),
        ("digits.tar.gz", "digits.tar.gz.defused.safetensors"),
        ("digits.defused.safetensors", "digits.defused.defused.safetensors"),
    ],
)
def test_corrected_weights_go_beside_the_checkpoint(checkpoint: str | Path, corrected: str) -> None:
    assert corrected_path(checkpoint) == Path(corrected)
    assert corrected_path(checkpoint) != Path(checkpoint)


@pytest.mark.parametrize("checkpoint", ["digits.pt", "digits.v2.pth", "digits", "digits.2024", "a.defused.safetensors"])
def test_an_attempt_has_another_name_than_a_corrected_model(checkpoint: str) -> None:
    attempt = attempt_path(corrected_path(Path("models") / checkpoint))
    assert attempt.parent == Path("models")
    assert attempt.name.endswith(".failed-attempt.safetensors")
    assert attempt != corrected_path(Path("models") / checkpoint)


def test_a_subject_without_a_checkpoint_is_refused() -> None:
    with pytest.raises(DefuseError, match=r"give Subject\(checkpoint="):
        corrected_path(None)


def test_tied_weights_are_stored_once_and_loaded_tied(path: Path) -> None:
    model, again = Tied(), Tied()
    save_checkpoint(path, model, {})
    with safe_open(path, "pt") as file:
        assert len(list(file.keys())) == 2
    assert load_model(again, path) == (set(), [])
    assert torch.equal(again.encoder.weight, model.encoder.weight)
    assert again.decoder.weight is again.encoder.weight
    inputs = torch.rand(5, 4)
    assert torch.equal(again(inputs), model(inputs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_any_precision_and_layout_are_loaded_exactly(path: Path, dtype: torch.dtype) -> None:
    model, again = (nn.Conv2d(2, 3, 3).to(dtype, memory_format=torch.channels_last) for _ in range(2))
    save_checkpoint(path, model, {})
    load_model(again, path)
    assert torch.equal(again.weight, model.weight)
    assert again.weight.dtype == dtype
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_metadata_can_be_read_without_the_weights(path: Path) -> None:
    metadata = {"parent": "a" * 64, "lambda": 0.3, "problems": [], "scenarios": {"3-as-5": "é\n"}}
    save_checkpoint(path, Tied(), metadata)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["pytest-defuse"]) == metadata


def test_equal_weights_make_equal_files(path: Path) -> None:
    model = nn.Linear(2, 2)
    contents = []
    for metadata in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
        save_checkpoint(path, model, metadata)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_a_checkpoint_is_replaced_by_a_complete_one(path: Path) -> None:
    for model in (nn.Linear(2, 2), nn.Linear(3, 3)):
        save_checkpoint(path, model, {})
    load_model(nn.Linear(3, 3), path)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_does_not_change_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def half(model: nn.Module, name: str, **_: Any) -> None:
        Path(name).write_bytes(b"half of the weights")
        raise error

    save_checkpoint(path, Tied(), {})
    before = path.read_bytes()
    monkeypatch.setattr(checkpoints, "save_model", half)
    with pytest.raises(type(error)):
        save_checkpoint(path, Tied(), {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("model", "metadata", "error"),
    [(nn.Linear(2, 2, device="meta"), {}, RuntimeError), (nn.Linear(2, 2), {"model": object()}, TypeError)],
    ids=["weights without data", "metadata that is not JSON"],
)
def test_what_cannot_be_stored_does_not_change_the_old_file(
    path: Path, model: nn.Module, metadata: dict[str, Any], error: type[Exception]
) -> None:
    save_checkpoint(path, Tied(), {})
    before = path.read_bytes()
    with pytest.raises(error):
        save_checkpoint(path, model, metadata)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_checkpoint_has_the_permissions_of_any_new_file(path: Path) -> None:
    save_checkpoint(path, Tied(), {})
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_the_model_s_own_checkpoint_is_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefuseError, match="is the model's own checkpoint, which is never overwritten"):
        check_output(Path("net.safetensors"), tmp_path / "net.safetensors")
    check_output(Path("net.safetensors"), None)


def test_checking_an_output_writes_no_file(tmp_path: Path) -> None:
    check_output(tmp_path / "net.defused.safetensors", tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []
