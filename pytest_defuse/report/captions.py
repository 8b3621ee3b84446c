"""A contact sheet with captions as SVG, which a page with a strict content security policy shows too."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pytest_defuse.scenarios.schema import ScenarioRecord, Split, TileFormat
from pytest_defuse.scenarios.sheets import grid, sheet_size, tile_corner

WIDEST_TILE = 64
"""Pixels. A page shows a sheet of larger tiles as a thumbnail. Our choice."""
CELL, GAP, LINE = 32, 4, 10
"""Width of a tile, gap between tiles and height of a line of text, in units of the drawing; the font's size is 8.
Our choice."""
LONGEST, LONGEST_NEXT_TO_INDEX = 6, 2
"""Letters of a class that fit below a tile, and those that fit there next to its index. Our choice."""


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
    """The values with which a template draws a sheet: sizes of sheet and tile in pixels, all else in its own units.

    Attributes:
        name: unique on the page.
        url: of the sheet; may be a data URL.
        one_line: whether the predicted class is next to the index, instead of one line below.
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
    one_line: bool
    cell_width: int = CELL
    line: int = LINE


def captioned(
    name: str, url: str, record: ScenarioRecord, split: Split, predicted: Sequence[str] | None
) -> CaptionedSheet:
    """A sheet with the index of each tile and the class that the model predicted for it.

    Args:
        name: unique on the page.
        url: address of the sheet.
        predicted: class names, one per tile; None if they were not recorded.
    """
    sheet, tile, label = record.sheet(split), record.tile, record.label or record.proposed_label
    columns, rows = grid(sheet.images)
    one_line = all(len(text) <= LONGEST_NEXT_TO_INDEX for text in predicted or ())
    cell_height = CELL * tile.height / tile.width
    step_x, step_y = CELL + GAP, cell_height + LINE * (1 if one_line else 2) + GAP
    captions = []
    for number in range(sheet.images):
        row, column = divmod(number, columns)
        left, top = tile_corner(number, sheet.images, tile, record.gap)
        prediction = predicted[number] if predicted is not None else ""
        left_out = number in sheet.excluded
        title = f"tile {number}" + (f": predicted {prediction}" if prediction else "")
        captions.append(
            Caption(
                index=number,
                predicted=prediction if len(prediction) <= LONGEST else f"{prediction[: LONGEST - 1]}…",
                title=f"{title} (excluded)" if left_out else title,
                x=column * step_x,
                y=row * step_y,
                left=left,
                top=top,
                wrong=bool(prediction) and label is not None and prediction != label,
                left_out=left_out,
            )
        )
    width, height = columns * step_x - GAP, rows * step_y - GAP
    size = sheet_size(sheet.images, tile, record.gap)
    return CaptionedSheet(
        name, url, width, height, *size, tile.width, tile.height, cell_height, tuple(captions), one_line
    )


def inline(png: bytes, tile: TileFormat) -> str:
    """A sheet as a data URL: the PNG itself, or a JPEG thumbnail if its tiles exceed :data:`WIDEST_TILE`."""
    if max(tile.width, tile.height) <= WIDEST_TILE:
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    factor = WIDEST_TILE / max(tile.width, tile.height)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        width, height = (max(1, round(side * factor)) for side in image.size)
        image.convert(tile.mode).resize((width, height), Image.Resampling.BOX).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
