"""The keys under which the plugin keeps values on pytest's config and items."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_defuse.plugin.session import DefuseSession
    from pytest_defuse.report.results import Result
    from pytest_defuse.scenarios.scenario import Scenario

SESSION: "pytest.StashKey[DefuseSession]" = pytest.StashKey()
"""Of the config: the plugin's session."""
SCENARIO: "pytest.StashKey[Scenario]" = pytest.StashKey()
"""Of an item that was collected from a scenario.yaml: its scenario."""
SUBJECT: pytest.StashKey[str] = pytest.StashKey()
"""Of an item that has evaluated its subject: the subject's name."""
FOREIGN: pytest.StashKey[bool] = pytest.StashKey()
"""Present on an item whose scenario is of another subject than its test."""
RESULTS: "pytest.StashKey[list[Result]]" = pytest.StashKey()
"""Of an item: its results."""
INCONCLUSIVE: pytest.StashKey[str] = pytest.StashKey()
"""Of an item that cannot be judged: why, in a sentence."""
