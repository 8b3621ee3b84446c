"""The options of pytest in a folder, with and without a session: command line, environment and ini file."""

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
        ini=dict.fromkeys(config._get_unknown_ini_keys(), "") | {row.key: str(config.getini(row.key)) for row in TABLE},
        start=config.invocation_params.dir,
        root=config.rootpath,
    )


def options_here(arguments: Sequence[str] = ()) -> Options:
    """The options that ``pytest *arguments`` would have in this folder; no test and no conftest.py is loaded."""
    try:
        pytest.main(list(arguments), plugins=[_Interceptor()])
    except _Resolved as resolved:
        return resolved.options
    raise DefuseError("pytest cannot start in this folder: fix the error above.")


class _Resolved(Exception):  # noqa: N818 - it carries a result, and is no error
    """Carries the options out of pytest's startup."""

    def __init__(self, options: Options) -> None:
        self.options = options


class _Interceptor:
    """Ends pytest's startup once its command line and ini file are read.

    A later hook would be too late: conftest.py would load the user's model, and coverage would erase its last results.
    """

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> Generator[None]:
        known = early_config.known_args_namespace
        if not hasattr(known, "defuse_store"):
            raise DefuseError("pytest does not load this plugin here: load it with -p pytest_defuse.plugin.")
        early_config.option = known
        raise _Resolved(resolve(sources_of(early_config)))
        yield  # a wrapper runs before the hooks of every other plugin
