"""Tables in the width of a terminal: no cell is cut, and no word is broken."""

import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from pytest_defuse.report.tables import Column, Row, Table
from pytest_defuse.runtime.escaping import encodable, visible

STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "chosen": "bold"}


def drawn(table: Table, width: int, encoding: str | None = "utf-8") -> Iterator[RenderableType]:
    """A table as a grid or, where its words do not fit next to each other, as one paragraph per row."""

    def shown(text: str) -> str:
        return encodable(visible(text), encoding)

    columns = tuple(Column(shown(column.title), column.numeric) for column in table.columns)
    rows = tuple(Row(tuple(map(shown, row.cells)), row.mark) for row in table.rows)
    widths = _widths(columns, rows, width - 2 * len(columns))
    if widths is None:
        for row in rows:
            style = STYLES[row.mark] if row.mark else ""
            named = [f"{column.title}: {cell}" for column, cell in zip(columns, row.cells, strict=True) if cell]
            paragraph = [*wrapped(named[0], width), *(f"  {s}" for s in wrapped("; ".join(named[1:]), width - 2))]
            yield Text("\n".join(paragraph), style)
        return
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column, size in zip(columns, widths, strict=True):
        grid.add_column(Text(column.title), justify="right" if column.numeric else "left", width=size)
    for row in rows:
        grid.add_row(*map(Text, row.cells), style=STYLES[row.mark] if row.mark else None)
    yield grid


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns; only a word that is longer exceeds it."""
    lines = [""]
    for space, word in re.findall(r"(\s*)(\S+)", text):
        if lines[-1].strip() and cell_len(lines[-1] + space + word) > width:
            lines.append(word)
        else:
            lines[-1] += space + word
    return lines


def _widths(columns: Sequence[Column], rows: Sequence[Row], available: int) -> list[int] | None:
    """Widths of columns that break no word, or no number and its share where possible; None if none fit."""
    texts = [[column.title, *(row.cells[index] for row in rows)] for index, column in enumerate(columns)]
    natural = [max(map(cell_len, column)) for column in texts]
    words = [max((cell_len(word) for text in column for word in text.split()), default=1) for column in texts]
    whole = [
        max(minimum, *(cell_len(row.cells[index]) for row in rows)) if column.numeric and rows else minimum
        for index, (column, minimum) in enumerate(zip(columns, words, strict=True))
    ]
    for minimal in (whole, words):
        if sum(minimal) <= available:
            widths = list(natural)
            while sum(widths) > available:
                # The column with the most space to give.
                slack = [size - least for size, least in zip(widths, minimal, strict=True)]
                widths[slack.index(max(slack))] -= 1
            return widths
    return None
