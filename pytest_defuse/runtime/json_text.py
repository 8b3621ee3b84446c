"""JSON that anyone may have written: limited in size and nesting, no key twice."""

import json
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_defuse.runtime.errors import DefuseError

MAX_JSON_BYTES = 2**25
"""Maximum size of a JSON file that is read, 32 MiB: a test set of 500,000 images, and figures. Our choice."""
MAX_PARTS = 300_000
"""Maximum number of keys, lists and objects: 1,000 scenarios of ten bounds have two thirds of it. Our choice."""


def parse_json(text: str, maximum: int = MAX_PARTS) -> Any:
    """The value that a JSON text stands for.

    Args:
        maximum: number of keys, lists and objects. Each takes 20 times its text in memory, and can be an error.

    Raises:
        ValueError: the text is not JSON, is too large or too deep, or has a key twice; the message says which.
    """
    if (parts := sum(map(text.count, ":[{"))) > maximum:
        raise ValueError(f"it has about {parts:,} keys and lists, more than the limit of {maximum:,}")
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_text(path: Path, make: str) -> str:
    """The UTF-8 text of a file, without a byte order mark.

    Args:
        make: tells the user in an error how to make the file.

    Raises:
        DefuseError: the file is missing, no regular file, or too large.
        ValueError: it is no UTF-8 text.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
            raise DefuseError(f"{path} cannot be read (it is not a file): {make}.")
        check_json_size(status.st_size, path)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DefuseError(f"{path} cannot be read ({error.strerror}): {make}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text: {error.reason}") from error


def check_json_size(size: int, path: Path) -> None:
    """Check the number of bytes of a JSON file, before it is read and before it is written."""
    if size > MAX_JSON_BYTES:
        raise DefuseError(f"{path} has {size:,} bytes, more than the limit of {MAX_JSON_BYTES:,}: divide it.")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {twice[:80]!r} is given twice")
    return value
