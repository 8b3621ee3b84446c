"""Scenario files as tests, by opt-in: ``--defuse-collect``, or a scenario.yaml named on the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_defuse.plugin.session import SCENARIO, SESSION
from pytest_defuse.runtime.errors import DefuseError

if TYPE_CHECKING:
    from _pytest._code.code import TerminalRepr

    from pytest_defuse.gate.gate import GatedScenario


class ScenarioTest(pytest.Function):
    """The test of one scenario; what failed is the file, not our code."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the test is: the scenario's file."""
        return self.path, 0, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> "str | TerminalRepr":
        """A bound that fails, as its sentence alone."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


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
                item = ScenarioTest.from_parent(self, name=scenario.id, callobj=_check)
                item.stash[SCENARIO] = scenario
                yield item


def _check(defuse_scenario: "GatedScenario") -> None:
    defuse_scenario.check()
