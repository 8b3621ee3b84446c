"""Contact sheets: the picture that a reviewer sees is the fixture, pixel for pixel."""

import hashlib
import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pytest_defuse.errors import DefuseError
from pytest_defuse.scenarios.schema import Tile

Pixels = NDArray[np.uint8]
"""Tiles, N x C x H x W. Arrays, not tensors: a store is read without torch."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def tile_of(pixels: Pixels) -> Tile:
    """Mode and size of tiles."""
    _, channels, height, width = pixels.shape
    return Tile(mode="L" if channels == 1 else "RGB", width=width, height=height)


def columns(count: int) -> int:
    """Tiles in a row of a sheet of ``count`` tiles: as square as it gets."""
    return math.ceil(math.sqrt(count))


def pixel_hash(pixels: Pixels) -> str:
    """sha256, in hex, over the mode, shape and values of tiles."""
    header = f"{tile_of(pixels).mode} {' x '.join(map(str, pixels.shape))} "
    return hashlib.sha256(header.encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def encode_sheet(pixels: Pixels) -> bytes:
    """Tiles as one lossless PNG, in reading order, unused cells black."""
    count, channels, height, width = pixels.shape
    across = columns(count)
    down = math.ceil(count / across)
    cells = np.zeros((down * across, channels, height, width), dtype=np.uint8)
    cells[:count] = pixels
    picture = cells.reshape(down, across, channels, height, width).transpose(0, 3, 1, 4, 2)
    array = picture.reshape(down * height, across * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if channels == 1 else array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_sheet(path: Path, tile: Tile, count: int, sha256: str) -> Pixels:
    """The tiles of a sheet, count x C x H x W.

    The size is compared before any pixel is decoded, so a picture of another size costs no memory.

    Raises:
        DefuseError: the file is missing, no PNG, a Git LFS pointer, or holds other pixels than recorded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DefuseError(f"{path} cannot be read ({error.strerror}): restore it from git.") from error
    if data.startswith(LFS_POINTER):
        raise DefuseError(f"{path} is a Git LFS pointer, not the picture: run 'git lfs pull'.")
    across = columns(count)
    expected = (across * tile.width, math.ceil(count / across) * tile.height)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.size != expected:
                raise DefuseError(
                    f"{path} is {picture.width} x {picture.height}, but {count} tiles of {tile.width} x "
                    f"{tile.height} make {expected[0]} x {expected[1]}: restore it from git."
                )
            # A PNG optimiser may have chosen another mode for the same pixels.
            array = np.array(picture.convert(tile.mode))
    except DefuseError:
        raise
    except Exception as error:  # Pillow has many kinds of them for a damaged file
        raise DefuseError(f"{path} is not a readable PNG ({error}): restore it from git.") from error
    channels = 1 if tile.mode == "L" else 3
    grid = array.reshape(-1, tile.height, across, tile.width, channels)
    pixels = grid.transpose(0, 2, 4, 1, 3).reshape(-1, channels, tile.height, tile.width)[:count]
    if pixel_hash(pixels) != sha256:
        raise DefuseError(
            f"{path} holds other pixels than its scenario.yaml records: restore both from the same commit."
        )
    return pixels
