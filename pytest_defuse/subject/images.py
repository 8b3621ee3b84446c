"""Data sets as uint8 pixels and class indices, checked when they are read."""

import hashlib
import math
import operator
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from pytest_defuse.runtime.determinism import Stream, random_numbers, seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.preprocessing import last_line


class Dataset(Protocol):
    """A map-style data set: a length, and (image, class index) pairs by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


MAX_BYTES_IN_MEMORY = 2**28
"""Larger data sets are kept in a temporary file that is mapped into memory. Our choice."""

COPY_BYTES = 2**25
"""Bytes of pixels that are copied at once, which bounds the memory that copying a mapped data set takes. Our choice."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A data set that was read; a large one is mapped from a file (see :data:`MAX_BYTES_IN_MEMORY`).

    Attributes:
        pixels: uint8, N x C x H x W, C = 1 (grey) or 3 (RGB).
        labels: int64, N, each an index into the subject's classes.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "LabelledImages":
        if isinstance(index, slice):
            return LabelledImages(self.pixels[index], self.labels[index])
        index = torch.arange(len(self))[index]
        pixels = empty_pixels(len(index), self.pixels.shape[1:])
        rows = max(1, COPY_BYTES // math.prod(self.pixels.shape[1:]))
        for source, target in zip(index.split(rows), pixels.split(rows), strict=True):
            target.copy_(self.pixels[source])
        return LabelledImages(pixels, self.labels[index])

    @cached_property
    def hash(self) -> str:
        """sha256, in hex, over shape, pixels and labels; scenarios and baselines store it."""
        return content_hash(self.pixels, self.labels)


@dataclass(frozen=True, eq=False)
class BufferedDataset:
    """A map-style data set of the items of an iterable, which are read into memory at the first access.

    Attributes:
        iterable: yields (image, class index) pairs, or batches of them: images N x ..., class indices N.
    """

    iterable: Iterable[Any]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Any:
        return self._pairs[index]

    @cached_property
    def _pairs(self) -> list[Any]:
        pairs: list[Any] = []
        for item in self.iterable:
            labels = item[1] if isinstance(item, tuple | list) and len(item) == 2 else None
            batch = isinstance(labels, Tensor | np.ndarray) and labels.ndim == 1
            pairs += zip(*item, strict=True) if batch else [item]
        return pairs


def map_style(dataset: Any) -> Dataset:
    """A map-style data set of any data set: generators, data loaders and iterable data sets are buffered."""
    iterable = not hasattr(dataset, "__getitem__") or isinstance(dataset, IterableDataset)
    result: Dataset = BufferedDataset(dataset) if iterable and hasattr(dataset, "__iter__") else dataset
    return result


def load(dataset: Dataset, name: str, classes: Sequence[str], count: int | None = None) -> LabelledImages:
    """Read a data set, or its first ``count`` images; the global random generators are restored.

    Args:
        dataset: pairs of (image, class index); see :func:`to_pixels` for the images.
        name: names the data set in messages, such as ``train``.

    Raises:
        DefuseError: the data set cannot be read, is empty, mixes image sizes, or has a label that is not a class index.
    """
    try:
        length = len(dataset)  # reads a buffered data set
    except Exception as error:  # the user's data set
        raise DefuseError(
            f"Subject({name}=...) is a {type(dataset).__name__} whose length cannot be read ({last_line(error)}): give "
            "a data set with __len__ and __getitem__, or an iterable."
        ) from error
    if not length:
        raise DefuseError(f"Subject({name}=...) is empty: give it at least one (image, class index) pair.")
    with seeded(0):  # a data set may augment at random
        return _load(dataset, min(count or length, length), name, classes)


def _load(dataset: Dataset, count: int, name: str, classes: Sequence[str]) -> LabelledImages:
    labels: list[int] = []
    for index in range(count):
        where = f"{name}[{index}]"
        image, label = _pair(dataset, index, where)
        image_pixels = to_pixels(image, where)
        if not index:
            pixels = empty_pixels(count, image_pixels.shape)
        if image_pixels.shape != pixels.shape[1:]:
            raise DefuseError(
                f"{where} is {size_words(image_pixels.shape)} but {name}[0] is {size_words(pixels.shape)}: "
                "resize the images of a subject to one size and mode in its data sets."
            )
        pixels[index] = image_pixels
        labels.append(_class_index(label, where, classes))
    return LabelledImages(pixels, torch.tensor(labels))


def _pair(dataset: Dataset, index: int, where: str) -> tuple[Any, Any]:
    try:
        item = dataset[index]
    except Exception as error:  # the user's data set
        raise DefuseError(f"{where} cannot be read ({last_line(error)}): fix the data set.") from error
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    kind = type(item).__name__
    if isinstance(item, Mapping):
        kind = f"{kind} with {', '.join(map(repr, item))}"
    elif isinstance(item, tuple | list):
        kind = f"{kind} of {len(item)}"
    raise DefuseError(
        f"{where} is not an (image, class index) pair but a {kind}: wrap the data set in one of such pairs."
    )


def empty_pixels(count: int, shape: Sequence[int]) -> Tensor:
    """An uninitialised uint8 tensor, count x shape, in memory or in a file that is deleted with the tensor."""
    if count * math.prod(shape) <= MAX_BYTES_IN_MEMORY:
        return torch.empty(count, *shape, dtype=torch.uint8)
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="w+", shape=(count, *shape)))


def to_pixels(image: Any, where: str) -> Tensor:
    """One image as uint8 C x H x W.

    Float images are rounded to the nearest of 256 levels, so an image that was read from a PNG is exact.

    Args:
        image: a PIL image of mode L or RGB, float C x H x W in [0, 1], or uint8 C x H x W or H x W.
        where: names the image in messages.

    Raises:
        DefuseError: the image has another type, shape, mode or range.
    """
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB"):
            raise DefuseError(f'{where} has mode {image.mode}: convert it with image.convert("RGB") or ("L").')
        image = np.array(image)
        image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    try:
        # A copy, because torch refuses negative strides and warns about read-only arrays.
        tensor = torch.as_tensor(np.array(image) if isinstance(image, np.ndarray) else image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DefuseError(f"{where} is a {type(image).__name__}: give a PIL image, a tensor or an array.") from error
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3) or not tensor.numel():
        raise DefuseError(
            f"{where} has shape {tuple(tensor.shape)}: give C x H x W with one (grey) or three (RGB) channels."
        )
    if tensor.dtype == torch.uint8:
        return tensor.contiguous()
    if not tensor.is_floating_point():
        raise DefuseError(f"{where} has dtype {tensor.dtype}: give uint8, or float in [0, 1].")
    low, high = tensor.min().item(), tensor.max().item()
    if not (low >= 0 and high <= 1):  # NaN too
        raise DefuseError(
            f"{where} has values from {low:.3g} to {high:.3g} outside [0, 1]: "
            "give plain pixels here and the normalisation to Subject(normalize=...)."
        )
    return quantise(tensor)


def split_off(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Nine tenths of the images, and a random tenth of each class (at least one image); always the same ones.

    Classes of fewer than ten images stay in the first part. Near-duplicates, such as the frames of one video, can be on
    both sides, and then accuracies on the tenth are too high.
    """
    order = torch.from_numpy(random_numbers(0, Stream.VALIDATION_SPLIT).permutation(len(images)))
    tenth = torch.zeros(len(images), dtype=torch.bool)
    for label in images.labels.unique():
        of_class = order[images.labels[order] == label]
        tenth[of_class[: len(of_class) // 10]] = True
    if not tenth.any():
        tenth[order[0]] = True
    return images[~tenth], images[tenth]


def found_in(pixels: Tensor, others: Iterable[Tensor]) -> Tensor:
    """Which images, uint8 N x C x H x W, are pixel for pixel among other images, each uint8 C x H x W: bool N."""
    known = {_digest(image) for image in others}
    return torch.tensor([_digest(image) in known for image in pixels], dtype=torch.bool)


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).digest()


def quantise(images: Tensor) -> Tensor:
    """Float pixels in [0, 1] as uint8 pixels, which a PNG can store; any shape."""
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8)


def content_hash(*parts: Tensor | str) -> str:
    """sha256, in hex, over shapes, dtypes and bytes of tensors, and over texts: the hash that files store.

    Keys of what is kept on disk are fingerprints (:mod:`pytest_defuse.runtime.fingerprint`).
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"text {len(part)} {part}".encode())
        else:
            data = part.detach().cpu().contiguous()
            digest.update(f"{data.dtype} {tuple(data.shape)} ".encode())
            digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def size_words(shape: Sequence[int]) -> str:
    """The size and mode of images of a shape (..., C, H, W) in words: ``28 x 28 grey``."""
    channels, height, width = shape[-3:]
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"


def _class_index(label: Any, where: str, classes: Sequence[str]) -> int:
    try:
        index = operator.index(label)  # not int(): neither "3" nor 1.5 is an index
    except TypeError:
        index = -1
    if not 0 <= index < len(classes):
        raise DefuseError(
            f"{where} has label {label!r}, but a label is an index into the {len(classes)} classes: "
            f"give 0 to {len(classes) - 1}, or name the missing class in Subject(classes=...)."
        )
    return index
