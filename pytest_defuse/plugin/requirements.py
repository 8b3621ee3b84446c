"""What the collected tests of one subject require."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_defuse.plugin.markers import bounds_of, marker_values, scenario_of

if TYPE_CHECKING:
    from pytest_defuse.scenarios.bounds import Bounds
    from pytest_defuse.scenarios.scenario import Scenario


class Requirements(NamedTuple):
    """What the collected tests of one subject require.

    Attributes:
        requests: every scenario that a test gates, with its bounds, each pair once.
        correction: the settings in the tests' ``defuse_correct`` markers.
    """

    requests: "Sequence[tuple[Scenario, Bounds]]" = ()
    correction: Mapping[str, Any] = MappingProxyType({})


def requirements(items: Sequence[pytest.Item]) -> Requirements:
    """The requirements of tests that have the same subject."""
    pairs = [(scenario, bounds_of(item)) for item in items if (scenario := scenario_of(item))]
    requests = {(scenario.folder, bounds): (scenario, bounds) for scenario, bounds in pairs}
    return Requirements(list(requests.values()), _correction_settings(items))


def _correction_settings(items: Sequence[pytest.Item]) -> dict[str, Any]:
    """The settings in the items' ``defuse_correct`` markers, which must agree: a subject has one correction."""
    settings: dict[str, Any] = {}
    for item in items:
        for name, value in marker_values(item, "defuse_correct").items():
            if settings.setdefault(name, value) != value:
                raise pytest.UsageError(
                    f"two tests give defuse_correct({name}=...) different values, {settings[name]!r} and {value!r}: "
                    "a subject has one correction, so give one value."
                )
    return settings
