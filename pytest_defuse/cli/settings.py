"""Where the store is: the options that pytest would have here."""

import argparse
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from pytest_defuse.errors import DefuseError
from pytest_defuse.options import Options, resolve
from pytest_defuse.report.words import relative


def store_root(arguments: argparse.Namespace) -> Path:
    """The folder of the store, as one would type it from here."""
    given = getattr(arguments, "defuse_store", None)
    store = options_here([] if given is None else [f"--defuse-store={given}"]).store
    return Path(relative(store, Path.cwd()))


def options_here(arguments: Sequence[str] = ()) -> Options:
    """The options that ``pytest *arguments`` would have in this folder, without running anything of it.

    Raises:
        DefuseError: pytest cannot start here, or an option has a value that cannot be read.
    """
    try:
        pytest.main(list(arguments), plugins=[_Interceptor()])
    except _Resolved as resolved:
        return resolved.options
    raise DefuseError("pytest does not start in this folder: mend what it says above.")


class _Resolved(Exception):  # noqa: N818 - not an error
    """Carries the options out of pytest's start-up."""

    def __init__(self, options: Options) -> None:
        self.options = options


class _Interceptor:
    """Ends pytest's start-up as soon as its command line and ini file are read.

    Any later, and conftest.py would load the user's model, and coverage would erase its last results.
    """

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> Generator[None]:
        known = early_config.known_args_namespace
        if not hasattr(known, "defuse_store"):
            raise DefuseError("pytest runs without this plugin here: load it with -p pytest_defuse.plugin.")
        early_config.option = known
        try:
            options = resolve(early_config)
        except pytest.UsageError as error:
            raise DefuseError(str(error)) from error
        raise _Resolved(options)
        yield  # what makes this a wrapper, which comes before every other plugin
