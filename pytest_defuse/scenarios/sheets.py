"""Contact sheets: the PNG that a reviewer sees is the fixture, pixel for pixel."""

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

from pytest_defuse.scenarios.problems import StoreError, plain_bytes, store_error, without_lfs_pointer
from pytest_defuse.scenarios.schema import SheetRecord, TileFormat

Pixels = NDArray[np.uint8]
"""Tiles, N x C x H x W. Arrays, not tensors: reading a store needs no torch."""

MAX_PNG_BYTES = 2**28
"""Maximum size of a PNG that is read, 256 MiB: more than the 200 MB of the largest sheet without compression."""


def tile_format(pixels: Pixels) -> TileFormat:
    """Mode and size of tiles."""
    _, channels, height, width = pixels.shape
    return TileFormat(mode="L" if channels == 1 else "RGB", width=width, height=height)


def grid(count: int) -> tuple[int, int]:
    """Columns and rows of a sheet of ``count`` tiles: as close to a square as possible."""
    columns = math.ceil(math.sqrt(count))
    return columns, math.ceil(count / columns)


def sheet_size(count: int, tile: TileFormat, gap: int) -> tuple[int, int]:
    """Width and height, in pixels, of a sheet of ``count`` tiles with a gap between neighbours."""
    columns, rows = grid(count)
    return columns * (tile.width + gap) - gap, rows * (tile.height + gap) - gap


def tile_corner(number: int, count: int, tile: TileFormat, gap: int) -> tuple[int, int]:
    """Left and top, in pixels, of a tile on a sheet of ``count``, counted from 0 in reading order."""
    row, column = divmod(number, grid(count)[0])
    return column * (tile.width + gap), row * (tile.height + gap)


def pixel_hash(pixels: Pixels) -> str:
    """sha256, in hex, of the mode, shape and values of tiles."""
    header = f"{tile_format(pixels).mode} {' x '.join(map(str, pixels.shape))} "
    return hashlib.sha256(header.encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def sheet_record(pixels: Pixels, predicted: Sequence[str]) -> SheetRecord:
    """The record of a sheet: its tiles, and the classes that the model predicts, one per tile."""
    return SheetRecord(images=len(pixels), sha256=pixel_hash(pixels), predicted=dict(Counter(predicted).most_common()))


def encode_sheet(pixels: Pixels) -> bytes:
    """Tiles as one lossless PNG, in reading order without gaps; unused cells are black."""
    count, channels, height, width = pixels.shape
    columns, rows = grid(count)
    cells = np.zeros((rows * columns, channels, height, width), dtype=np.uint8)
    cells[:count] = pixels
    image = cells.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    array = image.reshape(rows * height, columns * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if channels == 1 else array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_sheet(path: Path, sheet: SheetRecord, tile: TileFormat, gap: int = 0) -> Pixels:
    """The tiles of the sheet in a file; see :func:`decode_sheet`."""
    return decode_sheet(plain_bytes(path, MAX_PNG_BYTES), str(path), sheet, tile, gap)


def decode_sheet(data: bytes, file: str, sheet: SheetRecord, tile: TileFormat, gap: int = 0) -> Pixels:
    """The tiles in ``data``, the content of ``file``, N x C x H x W, excluded ones among them.

    The size is checked before any pixel is decoded, so an image of another size costs no memory.
    """
    data = without_lfs_pointer(data, file)
    size = sheet_size(sheet.images, tile, gap)
    try:
        # Pillow warns about the size when it opens an image; here the size is checked.
        quiet = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
        with quiet, Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != size:
                words = f"{sheet.images} tiles of {tile.width} x {tile.height} make {size[0]} x {size[1]}"
                raise store_error(file, f"is {image.width} x {image.height}, but {words}: restore it from git")
            # A PNG optimiser may have chosen another mode for the same pixels.
            array = np.array(image.convert(tile.mode)).reshape(size[1], size[0], tile.channels)
    except StoreError:
        raise
    except Image.DecompressionBombError:
        raise store_error(file, "claims to be larger than any image that is read: restore it from git") from None
    except Exception as error:  # Pillow raises many kinds of errors for a damaged file
        raise store_error(file, f"is not a readable PNG ({error}): restore it from git") from error
    columns, rows = grid(sheet.images)
    array = np.pad(array, ((0, gap), (0, gap), (0, 0)))  # each tile has its gap to the right and below
    cells = array.reshape(rows, tile.height + gap, columns, tile.width + gap, tile.channels)
    cells = cells[:, : tile.height, :, : tile.width].transpose(0, 2, 4, 1, 3)
    pixels = cells.reshape(-1, tile.channels, tile.height, tile.width)[: sheet.images]
    if pixel_hash(pixels) != sheet.sha256:
        raise store_error(file, "holds other pixels than its scenario.yaml records: restore both from the same commit")
    return pixels
