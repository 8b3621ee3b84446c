"""The scenarios below a folder, and those that a user names."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store


def stores(root: Path) -> list[Store]:
    """The stores of all subjects below a folder, by name; also one that has lost its store.yaml."""
    folders = {path.parent for path in root.glob("*/store.yaml")}
    folders |= {path.parents[1] for path in root.glob("*/*/scenario.yaml")}
    return [Store(folder) for folder in sorted(folders)]


def all_scenarios(root: Path) -> list[Scenario]:
    """The scenarios of all subjects below a folder, sorted by subject and id; see :func:`stores_below`."""
    return [scenario for store in stores_below(root) for scenario in store.scenarios()]


def stores_below(root: Path) -> list[Store]:
    """The stores of all subjects below a folder, by name."""
    if found := stores(root):
        return found
    raise DefuseError(
        f"There is no scenario store in {root}: run pytest --defuse-discover, "
        "or name the right folder with --defuse-store."
    )


def find(scenarios: Iterable[Scenario], name: str) -> Scenario:
    """The scenario called ``<id>`` or ``<subject>/<id>``; DefuseError if there is none, or several subjects have it."""
    found = [scenario for scenario in scenarios if name in (scenario.id, scenario.full_name)]
    if not found:
        raise DefuseError(f"There is no scenario {name!r}: see pytest-defuse list.")
    if len(found) > 1:
        raise DefuseError(f"Several subjects have {name!r}: name {' or '.join(s.full_name for s in found)}.")
    return found[0]


def accepted_scenarios(root: Path, only: Sequence[str] = ()) -> list[Scenario]:
    """The accepted scenarios of all subjects below a folder, or those that ``only`` names; sorted.

    Raises:
        DefuseError: a file is wrong, or ``only`` names something else.
    """
    return named([scenario for store in stores(root) for scenario in store.scenarios("accepted")], only, root)


def named(scenarios: Sequence[Scenario], only: Sequence[str], root: Path) -> list[Scenario]:
    """The scenarios of ids, ``subject/id``, labels or subjects; all of them without names.

    Raises:
        DefuseError: a name is that of no scenario; the message says that they are the accepted ones in ``root``.
    """
    names = [(s.id, s.full_name, s.record.label, s.subject) for s in scenarios]
    if unknown := [name for name in only if not any(name in own for own in names)]:
        raise DefuseError(
            f"defuse(only=...) names {unknown[0]!r}, which is neither the id, the label nor the subject of an accepted "
            f"scenario in {root}."
        )
    return [s for s, own in zip(scenarios, names, strict=True) if not only or any(name in own for name in only)]
