"""Collection: items for scenarios, and scenario files as tests."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_defuse.plugin.markers import bounds_of, fixtures_of
from pytest_defuse.plugin.stash import SCENARIO, SESSION
from pytest_defuse.runtime.errors import DefuseError, InconclusiveError
from pytest_defuse.runtime.escaping import visible

if TYPE_CHECKING:
    from pytest_defuse.gate.gate import GatedScenario
    from pytest_defuse.scenarios.scenario import Scenario


class ScenarioTest(pytest.Function):
    """The test of one scenario, reported at the scenario's file."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """The scenario's file and id."""
        return self.path, 0, self.name


class ScenarioFile(pytest.File):
    """A scenario.yaml: one test for an accepted scenario of the store.

    Others have none. It is an error to name them on the command line, and to collect an accepted one of another store.
    """

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the test, named by the scenario's id."""
        try:
            scenario = self._scenario()
        except DefuseError as error:
            raise self.CollectError(str(error)) from None
        if scenario:
            item = ScenarioTest.from_parent(self, name=scenario.id, callobj=_check)
            item.stash[SCENARIO] = scenario
            yield item

    def _scenario(self) -> "Scenario | None":
        from pytest_defuse.scenarios.documents import read_document
        from pytest_defuse.scenarios.schema import ScenarioRecord

        session = self.config.stash[SESSION]
        for scenario in session.accepted():
            if scenario.yaml.resolve() == self.path.resolve():
                return scenario
        status = read_document(self.path, ScenarioRecord).record.status
        if status == "accepted":
            raise DefuseError(
                f"{self.path} is not in the store {session.options.store}: name its own store with --defuse-store."
            )
        if self.session.isinitpath(self.path):
            raise DefuseError(
                f"{self.path} has the status {status!r}, and only an accepted scenario has a test: accept it with "
                "pytest-defuse label, or do not name the file."
            )
        return None


def _check(defuse_scenario: "GatedScenario") -> None:
    try:
        defuse_scenario.check()
    except AssertionError as error:
        pytest.fail(str(error), pytrace=False)


def parametrize_scenarios(metafunc: pytest.Metafunc) -> None:
    """Give a test one item for each accepted scenario that its ``only`` bound names; without any, one inconclusive."""
    session = metafunc.config.stash[SESSION]
    scenarios = session.accepted(bounds_of(metafunc.definition).only)
    params = [pytest.param(scenario, id=scenario.id) for scenario in scenarios]
    metafunc.parametrize("defuse_scenario", params or [pytest.param(None, id="none-accepted")], indirect=True)


def require_scenario(item: pytest.Item) -> None:
    """Raise InconclusiveError, before any fixture is set up, for the item of a test that has no accepted scenario."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    if "defuse_scenario" in params and params["defuse_scenario"] is None:
        root = visible(str(item.config.stash[SESSION].options.store))
        raise InconclusiveError(
            f"There is no accepted scenario in {root}: run pytest --defuse-discover, then label and accept its "
            "candidates."
        )


def discovery_item(session: pytest.Session, items: Sequence[pytest.Item]) -> pytest.Item | None:
    """A test that runs a discovery, unless one of the items does, or all tests of a subject use its failure modes."""
    tests = [item for item in items if {"defuse_subject", "defuse_discovery"}.intersection(fixtures_of(item))]
    used = [fixtures_of(item) for item in tests]
    if any("defuse_discovery" in names for names in used) or (used and all("defuse_failure_modes" in u for u in used)):
        return None
    parent = tests[0].getparent(pytest.Module) if tests else session
    item: pytest.Item = pytest.Function.from_parent(parent, name="defuse-discover", callobj=_discover)
    return item


def _discover(defuse_discovery: object) -> None:
    """Discovery as a test item."""
