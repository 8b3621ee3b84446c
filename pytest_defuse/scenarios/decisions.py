"""Decisions on scenarios: what ``pytest-defuse label`` and the page share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.schema import SPLITS
from pytest_defuse.scenarios.store import Scenario, Store, stores
from pytest_defuse.scenarios.votes import Tally, tally


def all_scenarios(root: Path) -> list[Scenario]:
    """The scenarios of all subjects below a folder, sorted by subject and id.

    Raises:
        DefuseError: there is no store, or some of its files are wrong.
    """
    return [scenario for store in stores_below(root) for scenario in store.scenarios()]


def stores_below(root: Path) -> list[Store]:
    """The stores of all subjects below a folder, by name; also one that has lost its store.yaml.

    Raises:
        DefuseError: there is none.
    """
    found = stores(root)
    if not found:
        raise DefuseError(
            f"There is no scenario store in {root}: run pytest --defuse-discover, "
            "or name the right folder with --defuse-store."
        )
    return found


def find(scenarios: Iterable[Scenario], name: str) -> Scenario:
    """The scenario called ``<id>`` or ``<subject>/<id>``.

    Raises:
        DefuseError: there is none, or several subjects have one of this id.
    """
    found = [s for s in scenarios if name in (s.id, full_name(s))]
    if not found:
        raise DefuseError(f"There is no scenario {name!r}: see pytest-defuse list.")
    if len(found) > 1:
        raise DefuseError(f"Several subjects have {name!r}: say {' or '.join(full_name(s) for s in found)}.")
    return found[0]


def full_name(scenario: Scenario) -> str:
    """``<subject>/<id>``."""
    return f"{scenario.subject}/{scenario.id}"


def classes_of(scenario: Scenario) -> tuple[str, ...]:
    """The labels that a scenario can be given."""
    return scenario.store.record().classes


def check_label(scenario: Scenario, label: str) -> None:
    """Raise a DefuseError if a label is not one of the scenario's classes."""
    classes = classes_of(scenario)
    if label not in classes:
        raise DefuseError(f"{label!r} is not a class of {full_name(scenario)}: choose from {', '.join(classes)}.")


def decide(scenario: Scenario, label: str | None, **changes: Any) -> Scenario:
    """Accept a scenario under a label that was checked, or reject it with None; ``changes`` go along.

    Raises:
        DefuseError: the scenario has gone, or its file is wrong.
    """
    status = "rejected" if label is None else "accepted"
    return scenario.store.update(scenario.id, status=status, label=label, **changes)


def tally_of(scenario: Scenario) -> Tally:
    """What the votes on a scenario's tiles say.

    Raises:
        DefuseError: a file of votes is wrong.
    """
    return tally(scenario.record, scenario.votes(), scenario.store.record().voting)


def decide_by_votes(scenario: Scenario, found: Tally) -> Scenario:
    """Decide as the votes say, excluding the tiles on which they see no class or another one.

    Where they leave it undecided, nothing changes.

    Raises:
        DefuseError: the scenario has gone, or its file is wrong.
    """
    if found.outcome == "undecided":
        return scenario
    if found.outcome == "no scenario":
        return decide(scenario, None)
    sheets = scenario.record.sheets.model_dump()
    for split in SPLITS:
        sheets[split]["excluded"] = sorted({*sheets[split]["excluded"], *found.excluded(split)})
    return decide(scenario, found.label, sheets=sheets)
