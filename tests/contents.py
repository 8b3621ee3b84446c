"""The files of a folder, to compare before and after."""

from pathlib import Path


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Every file below a folder whose name matches a pattern, by its path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}
