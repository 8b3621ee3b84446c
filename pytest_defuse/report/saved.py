"""The results of a run as one JSON file, from which every report can be rendered again."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pytest_defuse.report.results import Results
from pytest_defuse.report.words import relative
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.validation import first_invalid_value

FORMAT = 1


def dump_results(results: Results, start: Path) -> str:
    """All results as JSON; its paths are relative to ``start``, so that the file means the same elsewhere."""
    moved = _with_paths(results, lambda path: Path(relative(path, start)).as_posix())
    header = {"format": FORMAT, "pytest-defuse": version("pytest-defuse")}
    return json.dumps({**header, **asdict(moved)}, ensure_ascii=False) + "\n"


def load_results(path: Path, start: Path) -> Results:
    """Read what :func:`dump_results` made; its paths are taken from ``start``.

    Raises:
        DefuseError: the file cannot be read, is of a newer format, or holds something else.
    """
    make = f"make it with pytest --defuse-results={path}"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefuseError(f"{path} cannot be read ({error.strerror}): {make}.") from error
    except ValueError as error:
        raise DefuseError(f"{path} is not JSON ({error}): {make}.") from error
    given = data.get("format") if isinstance(data, dict) else None
    if not isinstance(given, int):
        raise DefuseError(f"{path} holds no results of a run: {make}.")
    if given > FORMAT:
        raise DefuseError(
            f"{path} has format {given}, but this pytest-defuse reads formats up to {FORMAT}: upgrade it."
        )
    try:
        results: Results = TypeAdapter(Results).validate_python(data)
    except ValidationError as error:
        raise DefuseError(f"{path}: {first_invalid_value(error)}: {make}.") from error
    return _with_paths(results, lambda name: os.path.normpath(start.absolute() / name))


def _with_paths(results: Results, move: Callable[[str], str]) -> Results:
    """The results with every path changed."""
    return replace(
        results,
        scenarios=[replace(s, folder=move(s.folder)) for s in results.scenarios],
        discoveries=[
            replace(d, new=[replace(candidate, folder=move(candidate.folder)) for candidate in d.new])
            for d in results.discoveries
        ],
        corrections=[replace(c, output=move(c.output)) for c in results.corrections],
    )
