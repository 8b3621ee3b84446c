"""The folder of the store, from the options that pytest would have in this folder."""

import argparse
from pathlib import Path

from pytest_defuse.plugin.inifile import options_here
from pytest_defuse.report.words import relative


def store_root(arguments: argparse.Namespace) -> Path:
    """The folder of the store, relative to the working directory."""
    folder = getattr(arguments, "defuse_store", None)
    store = options_here([] if folder is None else [f"--defuse-store={folder}"]).store
    return Path(relative(store, Path.cwd()))
