"""A contact sheet with captions: below each tile its index and the class that the model predicts.

The captions are SVG beside the pixels, without scripts and style attributes, so that a page with a strict content
security policy shows them too.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from pytest_defuse.scenarios.schema import Sheet, Tile
from pytest_defuse.scenarios.sheets import grid

WIDEST_TILE = 64
"""Pixels. A page shows a sheet of larger tiles as a thumbnail."""
CELL, GAP, LINE = 32, 4, 10
"""Width of a tile, gap between tiles and height of a line of text, in units of the drawing; the font's size is 8."""
LONGEST, BESIDE = 6, 2
"""Letters of a class that fit below a tile, and those that fit there beside its index."""


@dataclass(frozen=True)
class Caption:
    """The caption of a tile; ``wrong`` if the prediction is, ``left_out`` if the tile is excluded."""

    index: int
    predicted: str
    title: str
    x: float
    y: float
    left: int
    top: int
    wrong: bool
    left_out: bool


@dataclass(frozen=True)
class CaptionedSheet:
    """The values with which a template draws a sheet.

    Attributes:
        name: unique on the page.
        url: of the sheet; may be a data URL.
        width, height: of the drawing, in its own units.
        sheet_width, sheet_height, tile_width, tile_height: in pixels.
        cell_width, cell_height: of a tile, in units of the drawing.
        beside: whether the predicted class is beside the index, instead of one line below.
    """

    name: str
    url: str
    width: float
    height: float
    sheet_width: int
    sheet_height: int
    tile_width: int
    tile_height: int
    cell_height: float
    captions: tuple[Caption, ...]
    beside: bool
    cell_width: int = CELL
    line: int = LINE


def captioned(name: str, url: str, tile: Tile, sheet: Sheet, label: str | None) -> CaptionedSheet:
    """A sheet with the index and the predicted class of each tile.

    Args:
        name: unique on the page.
        url: of the sheet.
        label: the class that the tiles show; None if it is unknown.
    """
    across, down = grid(sheet.images)
    predictions: Mapping[int, str] = sheet.prediction_of
    beside = all(len(predicted) <= BESIDE for predicted in predictions.values())
    cell_height = CELL * tile.height / tile.width
    step_x, step_y = CELL + GAP, cell_height + LINE * (1 if beside else 2) + GAP
    left_out = set(sheet.excluded)
    captions = []
    for number in range(sheet.images):
        row, column = divmod(number, across)
        predicted = predictions.get(number, "")
        short = predicted if len(predicted) <= LONGEST else f"{predicted[: LONGEST - 1]}…"
        title = f"tile {number}" + (f": predicted {predicted}" if predicted else "")
        captions.append(
            Caption(
                index=number,
                predicted=short,
                title=f"{title} (excluded)" if number in left_out else title,
                x=column * step_x,
                y=row * step_y,
                left=column * tile.width,
                top=row * tile.height,
                wrong=bool(predicted) and label is not None and predicted != label,
                left_out=number in left_out,
            )
        )
    return CaptionedSheet(
        name=name,
        url=url,
        width=across * step_x - GAP,
        height=down * step_y - GAP,
        sheet_width=across * tile.width,
        sheet_height=down * tile.height,
        tile_width=tile.width,
        tile_height=tile.height,
        cell_height=cell_height,
        captions=tuple(captions),
        beside=beside,
    )


def inline(png: bytes, tile: Tile, sheet: Sheet) -> str:
    """A sheet as a data URL: the PNG itself, or a JPEG thumbnail if its tiles exceed :data:`WIDEST_TILE`."""
    if max(tile.width, tile.height) <= WIDEST_TILE:
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    factor = WIDEST_TILE / max(tile.width, tile.height)
    across, down = grid(sheet.images)
    size = (across * max(1, round(tile.width * factor)), down * max(1, round(tile.height * factor)))
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.convert(tile.mode).resize(size, Image.Resampling.BOX).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
