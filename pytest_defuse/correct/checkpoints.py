"""Checkpoints: safetensors files, written whole, that say where they come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_model
from torch import nn

from pytest_defuse.errors import DefuseError
from pytest_defuse.files import replace_file


def corrected_path(checkpoint: str | Path | None) -> Path:
    """Where the corrected weights of a checkpoint go: ``digits.safetensors`` -> ``digits.defused.safetensors``.

    Raises:
        DefuseError: the subject names no checkpoint.
    """
    if checkpoint is None:
        raise DefuseError(
            'Correction writes beside the model\'s checkpoint: name it with Subject(checkpoint="..."), '
            "a file that need not be safetensors."
        )
    return Path(checkpoint).with_suffix(".defused.safetensors")


def attempt_path(corrected: Path) -> Path:
    """Where an attempt that missed its bounds is kept; no one takes it for a corrected model."""
    return corrected.with_suffix("").with_suffix(".failed-attempt.safetensors")


def save_checkpoint(path: Path, model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write a model's state with metadata (JSON under the key ``pytest-defuse``), whole or not at all.

    Tied weights are stored once; ``safetensors.torch.load_model`` restores them.
    """
    text = {"pytest-defuse": json.dumps(metadata, sort_keys=True)}
    replace_file(path, lambda temporary: save_model(model, str(temporary), metadata=text))
