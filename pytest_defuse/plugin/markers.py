"""Markers: their help, and the scenario, fixtures and bounds of a test item."""

from typing import TYPE_CHECKING, Any

import pytest

from pytest_defuse.plugin.stash import SCENARIO, SESSION
from pytest_defuse.runtime.errors import DefuseError

if TYPE_CHECKING:
    from pytest_defuse.scenarios.bounds import Bounds
    from pytest_defuse.scenarios.scenario import Scenario

MARKERS = (
    "defuse(min_accuracy, max_error_rate, max_increase, max_drop, max_relative_drop, max_flips, per_class, "
    "max_shift_drop, confidence, only): "
    "bounds for defuse_scenario, defuse_overall and defuse_test_accuracy; without one, no regression from the "
    "baseline or, for scenarios, from the accuracy recorded at discovery",
    "defuse_correct(lambdas, epochs, frozen, loss, train_step, max_test_drop, ...): settings of --defuse-correct",
    "defuse_discover(draws, noise, budget, components, ...): settings of defuse_discovery",
    "defuse_explain(layer, depth, top, delta, tau, ...): settings of defuse_failure_modes",
)


def fixtures_of(item: pytest.Item) -> list[str]:
    """All fixtures that an item uses, directly or through others."""
    return list(getattr(item, "fixturenames", []))


def subject_source(item: pytest.Item) -> tuple[str, int] | None:
    """Where an item's subject comes from: the place of its fixture ``defuse_subject``, and the number of its parameter.

    A folder, module or class may override the fixture, so that its tests have another subject. None for a test without.
    """
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).get("defuse_subject")
    indices = getattr(getattr(item, "callspec", None), "indices", {})
    return (definitions[-1].baseid, indices.get("defuse_subject", 0)) if definitions else None


def scenario_of(item: pytest.Item) -> "Scenario | None":
    """The scenario that an item tests, if any."""
    callspec = getattr(item, "callspec", None)
    scenario: Scenario | None = callspec.params.get("defuse_scenario") if callspec else item.stash.get(SCENARIO, None)
    return scenario


def scenario_key(item: pytest.Item) -> str:
    """``subject/id`` of the scenario that an item tests; empty if it tests none."""
    scenario = scenario_of(item)
    return scenario.full_name if scenario else ""


def marker_values(item: pytest.Item, name: str) -> dict[str, Any]:
    """The keyword arguments of all markers of a name on an item; the closest marker wins for each."""
    values: dict[str, Any] = {}
    for marker in item.iter_markers(name):
        if marker.args:
            raise DefuseError(f"@pytest.mark.{name} accepts only keyword arguments, such as {name}(name=value).")
        values = {**marker.kwargs, **values}
    return values


def bounds_of(item: pytest.Item) -> "Bounds":
    """The bounds of an item: in its scenario's file, else in its ``defuse`` markers, else in ``--defuse-bounds``."""
    from pytest_defuse.scenarios.bounds import Bounds

    scenario, default = scenario_of(item), item.config.stash[SESSION].options.bounds
    own = Bounds.of(scenario.record.bounds) if scenario else Bounds()
    marked = Bounds.of(marker_values(item, "defuse"))
    return own.over(marked.over(default or Bounds()))


def requested_bounds(item: pytest.Item) -> "Bounds | None":
    """:func:`bounds_of` an item with a ``defuse`` marker, even an empty one, or with ``--defuse-bounds``; else None."""
    requested = item.get_closest_marker("defuse") or item.config.stash[SESSION].options.bounds is not None
    return bounds_of(item) if requested else None
