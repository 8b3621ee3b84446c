"""Pictures for one page: each contact sheet is there once, and its tiles are parts of it."""

import base64
import binascii
import math
import struct
from dataclasses import dataclass
from pathlib import Path

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = 24
"""Bytes up to and with the width and height of a PNG."""


@dataclass(frozen=True)
class Sheet:
    """A contact sheet, or why there is none.

    Attributes:
        name: the CSS class of what shows it or a tile of it.
        columns, rows: of tiles.
        aspect: width by height of the whole sheet.
        data: the PNG in base64; empty where there is ``problem``.
    """

    name: str = ""
    columns: int = 1
    rows: int = 1
    aspect: float = 1.0
    data: str = ""
    problem: str = ""

    def place(self, tile: int) -> str:
        """Where a tile is on the sheet, counted from 0 in reading order, as a CSS background position."""
        row, column = divmod(tile, self.columns)
        return f"{_percent(column, self.columns - 1)} {_percent(row, self.rows - 1)}"


class Album:
    """The sheets of one page, as long as its budget lasts.

    Attributes:
        left: characters that still fit.
        omitted: names of what did not fit.
        sheets: those that did.
    """

    def __init__(self, budget: int) -> None:
        """An album of at most ``budget`` characters."""
        self.left = budget
        self.omitted: list[str] = []
        self.sheets: list[Sheet] = []

    def held_out(self, scenario: str, folder: str, tiles: int, captions: int = 0) -> Sheet:
        """The held-out sheet of a scenario; ``captions`` are the characters that the page says of its tiles."""
        path = Path(folder) / "held_out.png"
        try:
            size = path.stat().st_size
            if 4 * size / 3 + captions > self.left:
                self.omitted.append(scenario)
                return Sheet(problem="picture left out: other pictures fill this file")
            data = path.read_bytes()
        except OSError as error:
            return Sheet(problem=f"no picture: held_out.png cannot be read ({error.strerror})")
        if not data.startswith(PNG_SIGNATURE):
            return Sheet(problem="no picture: held_out.png is not a PNG (with Git LFS, run 'git lfs pull')")
        self.left -= captions
        return self._add(data, tiles)

    def encoded(self, name: str, text: str, tiles: int) -> Sheet:
        """A sheet that the results themselves carry, a PNG in base64."""
        if len(text) > self.left:
            self.omitted.append(name)
            return Sheet(problem="pictures left out: other pictures fill this file")
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            data = b""
        return self._add(data, tiles) if data.startswith(PNG_SIGNATURE) else Sheet(problem="no picture")

    def _add(self, data: bytes, tiles: int) -> Sheet:
        columns = math.ceil(math.sqrt(max(tiles, 1)))
        rows = math.ceil(max(tiles, 1) / columns)
        width, height = struct.unpack(">II", data[HEADER - 8 : HEADER].ljust(8, b"\1"))
        sheet = Sheet(
            name=f"sheet-{len(self.sheets)}",
            columns=columns,
            rows=rows,
            aspect=width / max(height, 1),
            data=base64.b64encode(data).decode(),
        )
        self.left -= len(sheet.data)
        self.sheets.append(sheet)
        return sheet


def _percent(step: int, steps: int) -> str:
    return f"{100 * step / steps:.4g}%" if steps else "0"
