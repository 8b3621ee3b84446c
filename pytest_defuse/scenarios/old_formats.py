"""Formats before the present one, read by turning their data into the next format's, step by step.

- Format 0 kept summaries of votes in scenario.yaml and the generator's hash in store.yaml, where parallel branches
  came into conflict. Format 1 has one file per annotator, and the hash in each region only.
- Format 1 kept everything in scenario.yaml. Format 2 keeps what people do not read in machine.json.
"""

from collections.abc import Callable
from typing import Any

from pytest_defuse.scenarios.schema import FORMAT, MAX_SHEET_BYTES, SPLITS, description_of

Data = dict[Any, Any]

MALFORMED = (AttributeError, KeyError, TypeError, ValueError)
"""What reading data of another shape than the format's raises."""

BUDGET_OF_1 = str(2**20)
"""Default ``sheet_bytes`` of format 1; a store that still has it takes the present default."""


class OldFileError(Exception):
    """Data of an old format that cannot be converted, and the keys that lead to it."""

    def __init__(self, keys: tuple[str, ...], words: str) -> None:
        super().__init__(words)
        self.keys = keys


def _from_0(data: Data, schema_name: str) -> Data:
    if schema_name == "store":
        return {key: value for key, value in data.items() if key != "generator"}
    # A summary does not record which tile was given which class, so it cannot become votes: it is kept in words.
    summaries = [
        f"Vote of {vote.get('who')} ({vote.get('kind')}): {vote.get('label') or 'no class'}, "
        f"agreement {vote.get('agreement')}, none of the above on {vote.get('none_of_the_above', 0)} tiles."
        for vote in data.get("votes") or []
        if isinstance(vote, dict)
    ]
    notes = [str(text) for text in (data.get("notes"), *summaries) if text]
    return {key: value for key, value in data.items() if key != "votes"} | {"notes": "\n".join(notes)}


def _from_1(data: Data, schema_name: str) -> Data:
    if schema_name != "scenario":
        budgets = data.get("budgets")
        if isinstance(budgets, dict) and budgets.get("sheet_bytes") == BUDGET_OF_1:
            return data | {"budgets": budgets | {"sheet_bytes": MAX_SHEET_BYTES}}
        return data
    machine = {key: data.get(key) for key in ("region", "evidence")}
    kept = {key: value for key, value in data.items() if key not in machine}
    sheets = data.get("sheets")
    if isinstance(sheets, dict):
        kept["sheets"] = dict(sheets)
        for split in SPLITS:
            if isinstance(sheet := sheets.get(split), dict):
                kept["sheets"][split] = {key: value for key, value in sheet.items() if key != "predicted_tiles"}
                machine[split] = {"predicted": _by_tile(sheet.get("predicted_tiles"), split)}
    method = data.get("method")
    if isinstance(method, dict):
        if unknown := [key for key in method if key not in ("name", "rule", "base_error_rate")]:
            raise OldFileError(("method", unknown[0]), "is not a known key; check its spelling")
        description = {"description": method.get("rule") or description_of(data.get("proposed_label"), _mistake(data))}
        kept |= {"method": method.get("name"), "base_error_rate": method.get("base_error_rate")} | description
    return kept | {"machine": machine}


def _by_tile(tiles_of: Any, split: str) -> list[str] | None:
    """The class of each tile, from the tiles of each class."""
    if tiles_of is None:
        return None
    try:
        by_tile = {int(tile): name for name, tiles in tiles_of.items() for tile in tiles}
        return [by_tile[tile] for tile in range(sum(map(len, tiles_of.values())))]
    except MALFORMED:
        words = "predicted_tiles must name each tile, from 0, once"
        raise OldFileError(("sheets", split, "predicted_tiles"), words) from None


def _mistake(data: Data) -> str | None:
    """The class that the model predicted most for the held-out tiles, other than the proposed one."""
    try:
        predicted = data["sheets"]["held_out"]["predicted"]
        wrong = {name: int(count) for name, count in predicted.items() if name != data["proposed_label"]}
        return max(wrong, key=wrong.__getitem__, default=None)
    except MALFORMED:
        return None


MIGRATIONS: dict[int, Callable[[Data, str], Data]] = {0: _from_0, 1: _from_1}
"""For each old format, the migration to the next one."""


def upgraded(data: Data, number: int, schema_name: str) -> Data:
    """The data of a file of format ``number`` in the present format; ``machine`` is the content of machine.json.

    Wrong values are left for the schema to report.
    """
    for old in range(number, FORMAT):
        data = MIGRATIONS[old](data, schema_name)
    return data | {"format": FORMAT}
