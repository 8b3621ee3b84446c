"""Checkpoints: safetensors files whose metadata describes their origin."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_model
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
            'Correction writes the new weights next to the model\'s checkpoint: give Subject(checkpoint="..."), a file '
            "of any format, or --defuse-correct-output."
        )
    path = Path(checkpoint)
    return path.with_name((path.stem if path.suffix in SUFFIXES else path.name) + ".defused.safetensors")


def attempt_path(corrected: Path) -> Path:
    """The path of an attempt that failed a bound; its name differs from that of a corrected model."""
    name = corrected.name.removesuffix(".safetensors").removesuffix(".defused")
    return corrected.with_name(f"{name}.failed-attempt.safetensors")


def check_output(output: Path, checkpoint: str | Path | None) -> None:
    """Raise DefuseError, before any work, if the output is a folder, the model's checkpoint, or cannot be written."""
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
