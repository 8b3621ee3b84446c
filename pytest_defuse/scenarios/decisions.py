"""Decisions on scenarios: what ``pytest-defuse label`` and the review page share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.schema import SPLITS
from pytest_defuse.scenarios.store import Scenario, Store, stores
from pytest_defuse.scenarios.votes import Tally, tally


def all_scenarios(root: Path) -> list[Scenario]:
    """The scenarios of all subjects below a folder, sorted by subject and id; see :func:`stores_below`."""
    return [scenario for store in stores_below(root) for scenario in store.scenarios()]


def stores_below(root: Path) -> list[Store]:
    """The stores of all subjects below a folder, by name; a DefuseError if there is none."""
    if found := stores(root):
        return found
    raise DefuseError(
        f"There is no scenario store in {root}: run pytest --defuse-discover, "
        "or name the right folder with --defuse-store."
    )


def find(scenarios: Iterable[Scenario], name: str) -> Scenario:
    """The scenario called ``<id>`` or ``<subject>/<id>``; a DefuseError if there is none, or several have this id."""
    found = [scenario for scenario in scenarios if name in (scenario.id, scenario.full_name)]
    if not found:
        raise DefuseError(f"There is no scenario {name!r}: see pytest-defuse list.")
    if len(found) > 1:
        raise DefuseError(f"Several subjects have {name!r}: name {' or '.join(s.full_name for s in found)}.")
    return found[0]


def check_label(scenario: Scenario, label: str) -> None:
    """Raise a DefuseError if a scenario cannot be given a label."""
    if label not in scenario.classes:
        raise DefuseError(
            f"{label!r} is not a class of {scenario.full_name}: choose from {', '.join(scenario.classes)}."
        )
    if scenario.record.labels is not None:
        raise DefuseError(
            f"Each image of {scenario.full_name} has its own label: to accept it, set status in {scenario.yaml}."
        )


def decide(scenario: Scenario, label: str | None, **changes: Any) -> Scenario:
    """Accept a scenario under a label, or reject it with None; ``changes`` are further keys of scenario.yaml.

    Raises:
        DefuseError: the label cannot be given, the scenario no longer exists, or its file is wrong.
    """
    if label is not None:
        check_label(scenario, label)
    status = "rejected" if label is None else "accepted"
    return scenario.store.update(scenario.id, status=status, label=label, **changes)


def tally_of(scenario: Scenario) -> Tally:
    """The votes on a scenario's tiles, counted; a DefuseError if a file of votes is wrong."""
    return tally(scenario.record, scenario.machine, scenario.votes(), scenario.store.record().voting)


def decide_by_votes(scenario: Scenario, votes: Tally) -> Scenario:
    """Decide as the votes say, excluding the tiles on which they see no class or another one; see :func:`decide`.

    An undecided scenario is not changed.
    """
    if votes.outcome == "undecided":
        return scenario
    if votes.outcome == "no scenario":
        return decide(scenario, None)
    sheets = scenario.record.sheets.model_dump()
    for split in SPLITS:
        # New tiles come last, so that comments on those that are there stay with them.
        sheets[split]["excluded"] = list(dict.fromkeys([*sheets[split]["excluded"], *votes.excluded(split)]))
    return decide(scenario, votes.label, sheets=sheets)
