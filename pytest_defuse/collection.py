"""Scenario files as tests, by opt-in: ``--defuse-collect``, or a scenario.yaml named on the command line."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_defuse.errors import DefuseError
from pytest_defuse.session import SCENARIO, SESSION

if TYPE_CHECKING:
    from pytest_defuse.gate.gate import GatedScenario


class ScenarioFile(pytest.File):
    """A scenario.yaml: one test where the scenario is accepted, none where it is not."""

    def collect(self) -> Iterator[pytest.Item]:
        """The test, named by the scenario's id.

        Raises:
            pytest.Collector.CollectError: the store cannot be read.
        """
        try:
            accepted = self.config.stash[SESSION].accepted()
        except DefuseError as error:
            raise self.CollectError(str(error)) from None
        for scenario in accepted:
            if scenario.yaml == self.path:
                item = pytest.Function.from_parent(self, name=scenario.id, callobj=_check)
                item.stash[SCENARIO] = scenario
                yield item


def _check(defuse_scenario: "GatedScenario") -> None:
    __tracebackhide__ = True
    defuse_scenario.check()
