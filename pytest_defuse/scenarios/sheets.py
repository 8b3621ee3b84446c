"""Contact sheets: the picture that a reviewer sees is the fixture, pixel for pixel."""

import hashlib
import io
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pytest_defuse.scenarios.documents import LFS_POINTER, Problem, StoreError, plain_bytes
from pytest_defuse.scenarios.schema import Sheet, Tile

Pixels = NDArray[np.uint8]
"""Tiles, N x C x H x W. Arrays, not tensors: a store is read without torch."""

MOST_PNG_BYTES = 2**28


def tile_of(pixels: Pixels) -> Tile:
    """Mode and size of tiles."""
    _, channels, height, width = pixels.shape
    return Tile(mode="L" if channels == 1 else "RGB", width=width, height=height)


def grid(count: int) -> tuple[int, int]:
    """Columns and rows of a sheet of ``count`` tiles: as square as it gets."""
    across = math.ceil(math.sqrt(count))
    return across, math.ceil(count / across)


def pixel_hash(pixels: Pixels) -> str:
    """sha256, in hex, over the mode, shape and values of tiles."""
    header = f"{tile_of(pixels).mode} {' x '.join(map(str, pixels.shape))} "
    return hashlib.sha256(header.encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def sheet_of(pixels: Pixels, predicted: Sequence[str]) -> Sheet:
    """The record of a sheet: its tiles, and the class name that the model predicts for each."""
    counts = dict(Counter(predicted).most_common())
    tiles = {name: tuple(tile for tile, other in enumerate(predicted) if other == name) for name in counts}
    return Sheet(images=len(pixels), sha256=pixel_hash(pixels), predicted=counts, predicted_tiles=tiles)


def encode_sheet(pixels: Pixels) -> bytes:
    """Tiles as one lossless PNG, in reading order, unused cells black."""
    count, channels, height, width = pixels.shape
    across, down = grid(count)
    cells = np.zeros((down * across, channels, height, width), dtype=np.uint8)
    cells[:count] = pixels
    picture = cells.reshape(down, across, channels, height, width).transpose(0, 3, 1, 4, 2)
    array = picture.reshape(down * height, across * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if channels == 1 else array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_sheet(path: Path, tile: Tile, sheet: Sheet) -> Pixels:
    """The tiles of a sheet, N x C x H x W, excluded ones among them.

    Raises:
        StoreError: the file is missing, no PNG, a Git LFS pointer, or holds other pixels than recorded.
    """
    return decode_sheet(plain_bytes(path, MOST_PNG_BYTES), str(path), tile, sheet)


def decode_sheet(data: bytes, file: str, tile: Tile, sheet: Sheet) -> Pixels:
    """The tiles that ``data``, the content of ``file``, holds; as :func:`read_sheet`.

    The size is compared before any pixel is decoded, so a picture of another size costs no memory.
    """
    if data.startswith(LFS_POINTER):
        raise _refused(file, "is a Git LFS pointer, not the picture: run 'git lfs pull'")
    across, down = grid(sheet.images)
    expected = (across * tile.width, down * tile.height)
    try:
        with warnings.catch_warnings():
            # Pillow warns of a picture's size on opening; here it is compared with what is expected.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
                if picture.size != expected:
                    raise _refused(
                        file,
                        f"is {picture.width} x {picture.height}, but {sheet.images} tiles of {tile.width} x "
                        f"{tile.height} make {expected[0]} x {expected[1]}: restore it from git",
                    )
                # A PNG optimiser may have chosen another mode for the same pixels.
                array = np.array(picture.convert(tile.mode))
    except StoreError:
        raise
    except Image.DecompressionBombError:
        raise _refused(file, "claims to be larger than any picture that is read: restore it from git") from None
    except Exception as error:  # Pillow has many kinds of them for a damaged file
        raise _refused(file, f"is not a readable PNG ({error}): restore it from git") from error
    channels = 1 if tile.mode == "L" else 3
    cells = array.reshape(down, tile.height, across, tile.width, channels)
    pixels = cells.transpose(0, 2, 4, 1, 3).reshape(-1, channels, tile.height, tile.width)[: sheet.images]
    if pixel_hash(pixels) != sheet.sha256:
        raise _refused(file, "holds other pixels than its scenario.yaml records: restore both from the same commit")
    return pixels


def _refused(file: str, words: str) -> StoreError:
    return StoreError([Problem(file, f"{words}.")])
