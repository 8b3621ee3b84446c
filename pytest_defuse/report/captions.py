"""A contact sheet as a reviewer reads it: each tile with its index and what the model says beneath it.

The captions are drawn beside the pixels, never into them, as SVG without script or style, so that a page with a
strict content policy shows them too.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pytest_defuse.scenarios.schema import ScenarioRecord, Split
from pytest_defuse.scenarios.sheets import grid, sheet_size, tile_corner

WIDEST_TILE = 64
"""Pixels; a sheet of larger tiles is shrunk on a page, where it is a thumbnail."""
CELL, GAP, LINE = 32, 4, 10
LONGEST, BESIDE = 6, 2
"""Letters of a class that fit beneath a tile, and those that fit there beside its index."""


@dataclass(frozen=True)
class Caption:
    """What stands beneath a tile; ``wrong`` where the model is, ``left_out`` where the tile does not count."""

    index: int
    says: str
    title: str
    x: float
    y: float
    left: int
    top: int
    wrong: bool
    left_out: bool


@dataclass(frozen=True)
class CaptionedSheet:
    """Everything that a template needs to draw a sheet.

    Attributes:
        name: unique on the page.
        url: the picture, as an address or inline.
        width, height: of the drawing, in its own units.
        picture_width, picture_height, tile_width, tile_height: pixels.
        cell_height: of a tile, in the drawing's units; it is ``cell_width`` wide.
        beside: whether the class stands beside the index, or a line below.
    """

    name: str
    url: str
    width: float
    height: float
    picture_width: int
    picture_height: int
    tile_width: int
    tile_height: int
    cell_height: float
    captions: tuple[Caption, ...]
    beside: bool
    cell_width: int = CELL
    line: int = LINE


def captioned(
    name: str, url: str, record: ScenarioRecord, split: Split, predicted: Sequence[str] | None
) -> CaptionedSheet:
    """A sheet with the index of each tile and the class that the model predicted for it.

    Args:
        name: unique on the page.
        url: address of the sheet.
        predicted: class names, one a tile; None where they were not recorded.
    """
    sheet, tile, label = record.sheet(split), record.tile, record.label or record.proposed_label
    columns, rows = grid(sheet.images)
    width, height = sheet_size(sheet.images, tile, record.gap)
    beside = all(len(predicted_name) <= BESIDE for predicted_name in predicted or ())
    cell_height = CELL * tile.height / tile.width
    step_x, step_y = CELL + GAP, cell_height + LINE * (1 if beside else 2) + GAP
    left_out = set(sheet.excluded)
    captions = []
    for number in range(sheet.images):
        row, column = divmod(number, columns)
        left, top = tile_corner(number, sheet.images, tile, record.gap)
        says = predicted[number] if predicted is not None else None
        short = "" if says is None else says if len(says) <= LONGEST else f"{says[: LONGEST - 1]}…"
        title = f"tile {number}" + ("" if says is None else f": the model says {says}")
        captions.append(
            Caption(
                index=number,
                says=short,
                title=f"{title} (excluded)" if number in left_out else title,
                x=column * step_x,
                y=row * step_y,
                left=left,
                top=top,
                wrong=says is not None and label is not None and says != label,
                left_out=number in left_out,
            )
        )
    return CaptionedSheet(
        name=name,
        url=url,
        width=columns * step_x - GAP,
        height=rows * step_y - GAP,
        picture_width=width,
        picture_height=height,
        tile_width=tile.width,
        tile_height=tile.height,
        cell_height=cell_height,
        captions=tuple(captions),
        beside=beside,
    )


def inline(png: bytes, record: ScenarioRecord, split: Split) -> str:
    """The PNG of a sheet as a data URL, exact up to tiles of ``WIDEST_TILE``, else a smaller thumbnail."""
    tile = record.tile
    if max(tile.width, tile.height) <= WIDEST_TILE:
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    factor = WIDEST_TILE / max(tile.width, tile.height)
    width, height = sheet_size(record.sheet(split).images, tile, record.gap)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.convert(tile.mode).resize(size, Image.Resampling.BOX).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
