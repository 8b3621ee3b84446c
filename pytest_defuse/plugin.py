"""The pytest plugin: hooks only. Nothing here or imported here loads torch, numpy or pydantic."""

from collections.abc import Generator
from typing import Any

import pytest

from pytest_defuse import fixtures, options
from pytest_defuse.errors import DefuseError
from pytest_defuse.session import RESULTS, SESSION, DefuseSession, fixtures_of, parametrize_scenarios

MARKERS = (
    "defuse(min_accuracy, max_drop, max_shift_drop, confidence, only): bounds for defuse_scenario; "
    "without one, no regression from what was recorded at discovery",
    "defuse_correct(weights, epochs, frozen, loss, train_step, max_test_drop, ...): settings for --defuse-correct",
    "defuse_discover(draws, noise, budget, components, ...): settings for defuse_discovery",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register every option of the table."""
    options.register(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Resolve the options and start the session's bookkeeping."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    session = DefuseSession(config, options.resolve(config))
    config.stash[SESSION] = session
    config.pluginmanager.register(session, "defuse-session")
    config.pluginmanager.register(fixtures, "defuse-fixtures")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test item per accepted scenario."""
    if "defuse_scenario" in metafunc.fixturenames:
        try:
            parametrize_scenarios(metafunc)
        except DefuseError as error:
            raise pytest.Collector.CollectError(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print a DefuseError as its sentence alone, and send an item's results along with its report."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, DefuseError):
        report.longrepr = str(call.excinfo.value)
    # Plain attributes of a report travel through xdist as JSON.
    carried: dict[str, Any] = {"defuse_gate": "defuse_subject" in fixtures_of(item)}
    if report.when == "teardown":
        carried["defuse_results"] = item.stash.get(RESULTS, [])
    vars(report).update(carried)
    return report
