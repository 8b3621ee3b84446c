"""The identity of a model: results on disk are reused for the same model only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint, plain_repr
from pytest_defuse.subject.images import content_hash
from pytest_defuse.subject.preprocessing import normalized

FIXED_IMAGES = 8
"""Enough to vary from coarse to fine; few enough for a file in git, where 8 x 1,000 logits take 60 KB. Our choice."""

STEPS_PER_UNIT = 10_000
"""Outputs of ``normalize`` are rounded to 1e-4, finer than one of 256 grey levels. Our choice."""


@dataclass(frozen=True, eq=False)
class Identity:
    """The identity of a model.

    Attributes:
        fingerprint: see :func:`model_fingerprint`.
        outputs: float32, 8 x K: the logits (of a feature network the features) of :func:`fixed_images`. They show what
            the fingerprint cannot see, such as another ``forward``; rounding changes them a little, so they are
            compared by :func:`pytest_defuse.runtime.fingerprint.agree`.
    """

    fingerprint: str
    outputs: Tensor


def model_fingerprint(
    module: nn.Module,
    normalize: Callable[[Tensor], Tensor] | None,
    image_shape: Sequence[int],
    *,
    device: torch.device | str,
    name: str,
) -> str:
    """sha256, in hex, over the parts of a model, without running it.

    The parts are the names, dtypes, shapes and values of its state; its module's ``repr`` without memory addresses; and
    the fixed images after ``normalize``, rounded to 1e-4. ``torch.compile`` changes none of them.

    Args:
        image_shape: channels, height and width.
        name: names the model in messages.

    Raises:
        DefuseError: ``normalize`` fails or is random.
    """
    plain = getattr(module, "_orig_mod", module)
    state = {
        key: value if isinstance(value, Tensor) else plain_repr(value) for key, value in plain.state_dict().items()
    }
    inputs = _normalized(normalize, image_shape, device, name)
    return fingerprint("model", version=1, state=state, architecture=plain_repr(plain), inputs=inputs)


def weights_hash(module: nn.Module) -> str:
    """sha256, in hex, over the state only: the hash of generators in scenarios, and of models in earlier baselines."""
    state = module.state_dict()
    parts = ((name, state[name]) for name in sorted(state))
    return content_hash(*(p if isinstance(p, str | Tensor) else plain_repr(p) for part in parts for p in part))


def fixed_images(shape: Sequence[int]) -> Tensor:
    """Eight images of a shape, uint8 8 x C x H x W, the same on every machine: noise in 2 x 2 to 256 x 256 cells."""
    channels, height, width = shape
    bits = np.random.Philox(key=0)  # its raw numbers, unlike numpy's distributions, are the same in all versions
    images = np.empty((FIXED_IMAGES, channels, height, width), dtype=np.uint8)
    for number, image in enumerate(images):
        rows, columns = min(height, 2 << number), min(width, 2 << number)
        size = channels * rows * columns
        cells = bits.random_raw(-(-size // 8)).astype("<u8").view(np.uint8)[:size].reshape(channels, rows, columns)
        image[:] = cells[:, np.arange(height)[:, None] * rows // height, np.arange(width) * columns // width]
    return torch.from_numpy(images)


def _normalized(
    normalize: Callable[[Tensor], Tensor] | None, shape: Sequence[int], device: torch.device | str, name: str
) -> Tensor:
    """The fixed images after ``normalize``, in steps of 1e-4, int64."""
    images = fixed_images(shape)
    if normalize is None:
        return _steps(images.double() / 255)
    try:
        # In float64, devices and orders of operations differ by less than rounding to 1e-4 can show.
        once, twice = (normalized(normalize, images.to(device).double() / 255, name) for _ in range(2))
    except (DefuseError, TypeError, RuntimeError):  # no float64 in this function, or on this device
        once, twice = (normalized(normalize, images.to(device).float() / 255, name) for _ in range(2))
    once, twice = _steps(once), _steps(twice)
    if once.shape != twice.shape or (once - twice).abs().max() > 1:
        raise DefuseError(
            f"Subject(normalize=...) of {name} is random: it returns different values for the same images. Move random "
            "augmentation into training, so that results can be reproduced."
        )
    return once


def _steps(values: Tensor) -> Tensor:
    limit = 2.0**62  # infinity fits no int64
    return (values.detach().cpu().double() * STEPS_PER_UNIT).round().nan_to_num().clamp(-limit, limit).long()
