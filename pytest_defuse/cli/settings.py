"""Where the store is: the options that pytest would have here."""

import argparse
from pathlib import Path

from pytest_defuse.plugin.inifile import options_here
from pytest_defuse.report.words import relative


def store_root(arguments: argparse.Namespace) -> Path:
    """The folder of the store, as one would type it from here."""
    given = getattr(arguments, "defuse_store", None)
    store = options_here([] if given is None else [f"--defuse-store={given}"]).store
    return Path(relative(store, Path.cwd()))
