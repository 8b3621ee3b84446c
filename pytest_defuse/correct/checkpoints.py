"""Checkpoints: safetensors files with their origin in the metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import check_writable, replace_file

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Suffixes of checkpoints in PyTorch's and Hugging Face's documentation."""


def corrected_path(checkpoint: str | Path | None) -> Path:
    """The path of the corrected weights: ``digits.safetensors`` -> ``digits.defused.safetensors``.

    Only the suffix of a format is replaced: ``runs/digits.2024`` -> ``runs/digits.2024.defused.safetensors``.

    Raises:
        DefuseError: the subject has no checkpoint.
    """
    if checkpoint is None:
        raise DefuseError(
            'Correction writes the new weights beside the model\'s checkpoint: give Subject(checkpoint="..."), '
            "a file of any format, or --defuse-correct-output."
        )
    path = Path(checkpoint)
    return path.with_name((path.stem if path.suffix in SUFFIXES else path.name) + ".defused.safetensors")


def attempt_path(corrected: Path) -> Path:
    """The path of an attempt that failed a bound; its name differs from that of a corrected model."""
    name = corrected.name.removesuffix(".safetensors").removesuffix(".defused")
    return corrected.with_name(f"{name}.failed-attempt.safetensors")


def check_output(output: Path, checkpoint: str | Path | None) -> None:
    """Check, before any work, that the output may be written.

    Raises:
        DefuseError: it is the model's own checkpoint, a folder, or in a folder that cannot be written to.
    """
    if checkpoint is not None and output.resolve() == Path(checkpoint).resolve():
        raise DefuseError(f"{output} is the model's own checkpoint, which is never overwritten: name another output.")
    if output.is_dir():
        raise DefuseError(f"{output} is a folder: give --defuse-correct-output a file.")
    check_writable(output.parent, "the corrected checkpoint")


def save_checkpoint(path: Path, model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write a model's state and metadata (JSON under the key ``pytest-defuse``), whole or not at all.

    Tied weights are stored once; ``safetensors.torch.load_model`` restores them.
    """
    text = {"pytest-defuse": json.dumps(metadata, sort_keys=True)}
    replace_file(path, lambda temporary: save_model(model, str(temporary), metadata=text))


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load the state dict of a model from a ``.safetensors``, ``.pt`` or ``.pth`` file; no code in the file is run.

    Raises:
        DefuseError: the file cannot be read, holds other objects than tensors, or does not fit the model.
    """
    try:
        if Path(path).suffix == ".safetensors":
            load_model(model, path)
        else:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise DefuseError(f"{path} cannot be read ({error.strerror}).") from error
    except UnpicklingError as error:
        raise DefuseError(
            f"{path} holds other objects than tensors, and reading them would run code: save model.state_dict() alone."
        ) from error
    # torch raises errors of many types for files that are no state dict of this model.
    except (SafetensorError, RuntimeError, ValueError, TypeError, AttributeError, EOFError, LookupError) as error:
        raise DefuseError(
            f"{path} is not a state dict of this model ({_first_line(error)}): save model.state_dict()."
        ) from error


def checkpoint_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a file that :func:`save_checkpoint` wrote.

    Raises:
        DefuseError: the file is another one.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, Any] = json.loads(file.metadata()["pytest-defuse"])
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise DefuseError(f"{path} is not a checkpoint that pytest-defuse wrote.") from error
    return metadata


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
