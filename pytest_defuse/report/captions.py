"""A contact sheet with captions: below each tile its index and the class that the model predicts.

The captions are SVG beside the pixels, without scripts and style attributes, so that a page with a strict content
security policy shows them too.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pytest_defuse.scenarios.schema import ScenarioRecord, Split
from pytest_defuse.scenarios.sheets import grid, sheet_size, tile_corner

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
        prediction = predicted[number] if predicted is not None else ""
        short = prediction if len(prediction) <= LONGEST else f"{prediction[: LONGEST - 1]}…"
        title = f"tile {number}" + (f": predicted {prediction}" if prediction else "")
        captions.append(
            Caption(
                index=number,
                predicted=short,
                title=f"{title} (excluded)" if number in left_out else title,
                x=column * step_x,
                y=row * step_y,
                left=left,
                top=top,
                wrong=bool(prediction) and label is not None and prediction != label,
                left_out=number in left_out,
            )
        )
    return CaptionedSheet(
        name=name,
        url=url,
        width=columns * step_x - GAP,
        height=rows * step_y - GAP,
        sheet_width=width,
        sheet_height=height,
        tile_width=tile.width,
        tile_height=tile.height,
        cell_height=cell_height,
        captions=tuple(captions),
        beside=beside,
    )


def inline(png: bytes, record: ScenarioRecord, split: Split) -> str:
    """A sheet as a data URL: the PNG itself, or a JPEG thumbnail if its tiles exceed :data:`WIDEST_TILE`."""
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
