"""The contact sheets in an HTML page. Each is embedded once; CSS shows its tiles as parts of it."""

import base64
import binascii
import struct
from dataclasses import dataclass, field
from pathlib import Path

from pytest_defuse.scenarios.sheets import grid

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIZE = slice(16, 24)
"""Bytes of a PNG that contain its width and height (PNG specification, section 11.2.2)."""


@dataclass(frozen=True)
class EmbeddedSheet:
    """A contact sheet in a page, or the reason why it is missing.

    Attributes:
        name: the CSS class of elements that show it or one of its tiles.
        columns, rows: of tiles.
        aspect, tile_aspect: width / height of the whole sheet, of a tile.
        scale: width and height of the sheet in units of a tile's.
        data: the PNG in base64; empty with a ``problem``.
    """

    name: str = ""
    columns: int = 1
    rows: int = 1
    aspect: float = 1.0
    tile_aspect: float = 1.0
    scale: tuple[float, float] = (1.0, 1.0)
    data: str = ""
    problem: str = ""

    def place(self, tile: int) -> str:
        """The CSS background position of a tile, counted from 0 in reading order, whatever the gap between tiles."""
        row, column = divmod(tile, self.columns)
        return f"{_percent(column, self.columns - 1)} {_percent(row, self.rows - 1)}"


@dataclass
class Album:
    """The sheets of one page, within a budget.

    Attributes:
        left: number of characters left in the budget.
        omitted: names of the sheets that exceed it.
        sheets: all others.
    """

    left: int
    omitted: list[str] = field(default_factory=list)
    sheets: list[EmbeddedSheet] = field(default_factory=list)

    def held_out(self, scenario: str, folder: str, tiles: int, gap: int = 0, captions: int = 0) -> EmbeddedSheet:
        """The held-out sheet of a scenario: ``gap`` pixels between tiles, ``captions`` characters for captions."""
        path = Path(folder) / "held_out.png"
        try:
            if 4 * path.stat().st_size / 3 + captions > self.left:  # base64 has 4 characters for 3 bytes
                return self._left_out(scenario)
            data = path.read_bytes()
        except (OSError, ValueError) as error:  # a ValueError: a path that no file can have
            reason = error.strerror if isinstance(error, OSError) else error
            return EmbeddedSheet(problem=f"no sheet: held_out.png cannot be read ({reason})")
        if not data.startswith(PNG_SIGNATURE):
            return EmbeddedSheet(problem="no sheet: held_out.png is not a PNG (with Git LFS, run 'git lfs pull')")
        self.left -= captions
        return self._add(data, tiles, gap)

    def encoded(self, name: str, text: str, tiles: int) -> EmbeddedSheet:
        """A sheet that is part of the results, a PNG in base64."""
        if len(text) > self.left:
            return self._left_out(name)
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            data = b""
        return self._add(data, tiles) if data.startswith(PNG_SIGNATURE) else EmbeddedSheet(problem="no sheet")

    def _left_out(self, name: str) -> EmbeddedSheet:
        self.omitted.append(name)
        return EmbeddedSheet(problem="sheet left out to keep this file small")

    def _add(self, data: bytes, tiles: int, gap: int = 0) -> EmbeddedSheet:
        columns, rows = grid(max(tiles, 1))
        width, height = struct.unpack(">II", data[SIZE].ljust(8, b"\1"))
        # At least 1: a header may be wrong.
        tile_width = max(1, (width - (columns - 1) * gap) / columns)
        tile_height = max(1, (height - (rows - 1) * gap) / rows)
        sheet = EmbeddedSheet(
            name=f"sheet-{len(self.sheets)}",
            columns=columns,
            rows=rows,
            aspect=width / max(height, 1),
            tile_aspect=tile_width / tile_height,
            scale=(width / tile_width, height / tile_height),
            data=base64.b64encode(data).decode(),
        )
        self.left -= len(sheet.data)
        self.sheets.append(sheet)
        return sheet


def _percent(step: int, steps: int) -> str:
    return f"{100 * step / steps:.4g}%" if steps else "0"
