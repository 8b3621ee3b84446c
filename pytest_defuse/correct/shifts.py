"""Shifted copies of labelled images: mild, fixed changes on which a correction must not lower accuracy.

A test set does not show everything that a correction breaks. The kinds are from Hendrycks and Dietterich 2019; the
strengths are our choice, low enough that every image stays readable.
"""

import io
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pytest_defuse.runtime.determinism import Stream, random_numbers
from pytest_defuse.subject.affine import transformed
from pytest_defuse.subject.images import LabelledImages, empty_pixels, quantise

CHUNK_SIZE = 1024
"""Images that share one stream of random numbers. Our choice."""

PART_VALUES = 2**21
"""Pixel values that are changed at once: the blur takes 57 bytes for each, so 120 MB. Our choice."""


def shifted_copies(images: LabelledImages) -> dict[str, LabelledImages]:
    """A copy of the images for each kind of shift, by its name, with the same labels.

    Large copies are kept in files that are mapped into memory, as large data sets are.
    """
    copies = {}
    for name in SHIFTS:
        pixels, start = empty_pixels(len(images), images.pixels.shape[1:]), 0
        for part in shifted_parts(images.pixels, name):
            pixels[start : start + len(part)] = part
            start += len(part)
        copies[name] = LabelledImages(pixels, images.labels)
    return copies


def shifted_parts(pixels: Tensor, name: str) -> Iterator[Tensor]:
    """Images with one kind of shift, in parts that fit into memory.

    The change of an image depends only on its position in the set, so accuracies of different runs can be compared.

    Args:
        pixels: uint8 N x C x H x W.
        name: a key of :data:`SHIFTS`.

    Yields:
        uint8 n x C x H x W, at most :data:`PART_VALUES` values or one image; N images together, in their order.
    """
    number, change = list(SHIFTS).index(name), SHIFTS[name]
    rows = max(1, PART_VALUES // math.prod(pixels.shape[1:]))
    for chunk_number, chunk in enumerate(pixels.split(CHUNK_SIZE)):
        random = random_numbers(0, Stream.SHIFTS, number, chunk_number)  # image by image, whatever the size of a part
        for part in chunk.split(rows):
            yield change(part, random)


def _blur(pixels: Tensor, _: np.random.Generator) -> Tensor:
    """Gaussian blur with a std of a fortieth of the shorter side, at least 0.5 pixels."""
    from torchvision.transforms.v2.functional import gaussian_blur  # slow to import

    sigma = max(0.5, min(pixels.shape[-2:]) / 40)
    return quantise(gaussian_blur(pixels.float() / 255, [2 * round(3 * sigma) + 1] * 2, [sigma, sigma]))


def _noise(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Gaussian noise with a std of 5% of the range."""
    noise = torch.from_numpy(random.standard_normal(pixels.shape, dtype=np.float32))
    return quantise(pixels.float() / 255 + 0.05 * noise)


def _affine(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Rotation up to 8 degrees, scale up to 6%, translation up to 4% of a side, with repeated borders."""
    angle, scale, x, y = torch.from_numpy(random.uniform(-1, 1, (len(pixels), 4)).astype(np.float32)).T
    no_shear = torch.zeros(len(pixels))
    images = pixels.float() / 255
    return quantise(transformed(images, 0.14 * angle, 1 + 0.06 * scale, no_shear, 0.04 * x, 0.04 * y))


def _contrast(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Contrast between 60% and 100%, then brightness changed by up to 10% of the range."""
    strengths = torch.from_numpy(random.uniform(0, 1, (len(pixels), 2)).astype(np.float32))
    contrast, brightness = strengths.T.reshape(2, -1, 1, 1, 1)
    images = pixels.float() / 255
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return quantise(mean + (0.6 + 0.4 * contrast) * (images - mean) + 0.2 * brightness - 0.1)


def _jpeg(pixels: Tensor, _: np.random.Generator) -> Tensor:
    """JPEG at quality 50."""
    return torch.stack([_compressed(image) for image in pixels])


def _compressed(image: Tensor) -> Tensor:
    array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, "JPEG", quality=50)
    pixels = torch.from_numpy(np.array(Image.open(buffer)))
    return pixels[None] if len(image) == 1 else pixels.permute(2, 0, 1)


SHIFTS: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "blur": _blur,
    "noise": _noise,
    "affine": _affine,
    "contrast": _contrast,
    "jpeg": _jpeg,
}
