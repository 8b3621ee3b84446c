"""Where the files of a store contradict each other."""

from collections.abc import Sequence
from pathlib import PurePath

from pytest_defuse.scenarios.documents import Document
from pytest_defuse.scenarios.machine import MachineRecord
from pytest_defuse.scenarios.problems import Problem
from pytest_defuse.scenarios.schema import SPLITS, ScenarioRecord, StoreRecord, VotesRecord


def scenario_problems(
    document: Document[ScenarioRecord], machine: MachineRecord | None, folder: str, shared: StoreRecord
) -> list[Problem]:
    """Where a scenario contradicts its folder's name or store.yaml, each at its line of scenario.yaml."""
    record, problems = document.record, []
    if record.id != folder:
        words = f"the id is {record.id!r}, but the folder is {folder!r}: give both the same name."
        problems.append(document.problem(("id",), words))
    if record.tile != shared.tile:
        problems.append(document.problem(("tile",), "differs from that of store.yaml: restore both from git."))
    named = [*record.class_names()]
    if machine is not None:
        # In an old format these keys are in scenario.yaml.
        prefix = () if document.machine else ("machine",)
        named += [((*prefix, *keys), name) for keys, name in machine.class_names()]
    for keys, name in named:
        if name not in shared.classes:
            words = f"{name!r} is not one of the classes {listed(shared.classes)}."
            problems.append(document.problem(keys, words))
    return problems


def vote_problems(document: Document[VotesRecord], record: ScenarioRecord, classes: Sequence[str]) -> list[Problem]:
    """Where a file of votes contradicts its name, its scenario or the classes, each at its line."""
    votes, problems = document.record, []
    if votes.annotator != PurePath(document.file).stem:
        words = f"it is {votes.annotator!r}, but the file is {PurePath(document.file).name!r}: give both the same name."
        problems.append(document.problem(("annotator",), words))
    for split in SPLITS:
        cast, sheet = votes.split(split), record.sheet(split)
        if cast is None:
            continue
        if cast.sha256 != sheet.sha256:
            problems.append(document.problem((split, "sha256"), f"these votes are on other pixels than {split}.png."))
        for tile in cast.by_tile:
            if tile >= sheet.images:
                words = f"votes on tile {tile}, but the sheet has tiles 0 to {sheet.images - 1}."
                problems.append(document.problem((split,), words))
        for name in cast.labels:
            if name not in classes:
                words = f"{name!r} is not one of the classes {listed(classes)}."
                problems.append(document.problem((split, "labels", name), words))
    return problems


def listed(names: Sequence[str], maximum: int = 20) -> str:
    """Names in a sentence; of many, the first ``maximum``."""
    more = f" and {len(names) - maximum} more" if len(names) > maximum else ""
    return ", ".join(names[:maximum]) + more
