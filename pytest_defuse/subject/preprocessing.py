"""The user's ``normalize``, checked at every call."""

from collections.abc import Callable
from textwrap import shorten

import torch
from torch import Tensor

from pytest_defuse.runtime.errors import DefuseError

Normalize = Callable[[Tensor], Tensor]
"""Float images N x C x H x W in [0, 1] -> the model's input, a tensor of N rows."""


def normalized(normalize: Normalize | None, images: Tensor, name: str = "the model") -> Tensor:
    """The images after ``normalize``, which may change its argument: it gets a copy. Differentiable.

    Args:
        name: names the model in messages.

    Raises:
        DefuseError: ``normalize`` raises an error, or does not return a tensor with one row for each image.
    """
    if normalize is None:
        return images
    shape = tuple(images.shape)
    where, what = f"Subject(normalize=...) of {name}", "give a function of float images N x C x H x W in [0, 1]"
    try:
        output = normalize(images.clone())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the user's function
        raise DefuseError(f"{where} fails on images of shape {shape} ({last_line(error)}): {what}.") from error
    if not isinstance(output, Tensor):
        raise DefuseError(
            f"{where} returned a {type(output).__name__} for images of shape {shape}: {what} that returns a tensor."
        )
    if not output.ndim or len(output) != len(images):
        raise DefuseError(
            f"{where} returned shape {tuple(output.shape)} for images of shape {shape}: {what} that returns one row "
            "for each image."
        )
    return output


def last_line(error: Exception) -> str:
    """The type of an error and its last line, shortened: TorchScript's gives the reason there, after a traceback."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {shorten(lines[-1], 200)}" if lines else type(error).__name__
