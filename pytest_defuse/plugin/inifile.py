"""The options that pytest would have in a folder: from its command line, environment and ini file."""

import os
from collections.abc import Generator, Sequence

import pytest

from pytest_defuse.plugin.options import TABLE, Options, Sources, resolve
from pytest_defuse.runtime.errors import DefuseError


def sources_of(config: pytest.Config) -> Sources:
    """The command line, environment and ini file of a pytest session."""
    return Sources(
        command_line={row.key: config.getoption(row.key) for row in TABLE},
        environment=os.environ,
        ini={row.key: str(config.getini(row.key)) for row in TABLE},
        start=config.invocation_params.dir,
        root=config.rootpath,
    )


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
        raise _Resolved(resolve(sources_of(early_config)))
        yield  # what makes this a wrapper, which comes before every other plugin
