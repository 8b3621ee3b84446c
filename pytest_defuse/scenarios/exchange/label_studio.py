"""Label Studio: exported as tasks, imported from its JSON export.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/tags/choices.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_text
from pytest_defuse.runtime.json_text import parse_json
from pytest_defuse.runtime.validation import shortened
from pytest_defuse.scenarios.exchange.ballots import Ballot, Item, Kind, Responses, annotator_name

PREFIX = "/data/local-files/?d="
"""Address in Label Studio of files below its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""


def write_tasks(folder: Path, items: Sequence[Item], choices: Sequence[str]) -> None:
    """Write ``tasks.json`` and ``labeling-config.xml``, without predictions, which would influence people."""
    tasks = [{"data": {"image": image, **keys}} for image, keys in items]
    replace_text(folder / "tasks.json", json.dumps(tasks, indent=1) + "\n")
    buttons = "\n".join(f"    <Choice value={quoteattr(choice)}/>" for choice in choices)
    config = (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="class" toName="image" choice="single-radio">\n{buttons}\n  </Choices>\n</View>\n'
    )
    replace_text(folder / "labeling-config.xml", config)


def read_export(text: str) -> Responses:
    """The answers in a JSON export: annotations are votes of people, predictions are votes of models.

    Of several annotations of a task by one person the last one counts; skipped ones do not.
    """
    try:
        tasks = parse_json(text)
    except ValueError as error:
        raise DefuseError(f"It is not JSON ({error}): export the project as JSON.") from error
    if not isinstance(tasks, list) or not all(isinstance(t, dict) and isinstance(t.get("data"), dict) for t in tasks):
        raise DefuseError("It is not a list of tasks with data: export the project as JSON, not as JSON-MIN.")
    return [
        _answers(task, f"task {shortened(str(task.get('id', position)))}")
        for position, task in enumerate(tasks, start=1)
    ]


def _answers(task: dict[str, Any], where: str) -> list[Ballot | str]:
    """The answers on one task."""
    problems: list[str] = []
    latest: dict[str, Ballot] = {}
    for annotation in sorted(_dicts(task.get("annotations")), key=lambda a: str(a.get("updated_at", ""))):
        who = _person(annotation.get("completed_by"))
        found = _choice(annotation, where, who, "human", task["data"])
        if isinstance(found, Ballot):
            latest[who] = found
        elif found:
            problems.append(found)
    models = []
    for prediction in _dicts(task.get("predictions")):
        who = annotator_name(str(prediction.get("model_version") or "label-studio-model"))
        models.append(_choice(prediction, where, who, "model", task["data"]))
    return [*latest.values(), *problems, *(found for found in models if found)]


def _choice(answer: dict[str, Any], where: str, who: str, kind: Kind, data: dict[str, Any]) -> Ballot | str | None:
    """The choice of an annotation or prediction; None if there is none, a sentence if there are several."""
    results = [result for result in _dicts(answer.get("result")) if result.get("type") == "choices"]
    if answer.get("was_cancelled") or not results:
        return None
    value = results[0].get("value") if len(results) == 1 else None
    chosen = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(chosen, list) or len(chosen) != 1 or not isinstance(chosen[0], str):
        return f"{where}: {who} did not choose exactly one class."
    return Ballot(where, who, kind, data, chosen[0])


def _person(completed_by: Any) -> str:
    """The annotator: an id or, in some exports, a user record."""
    if isinstance(completed_by, dict):
        return annotator_name(str(completed_by.get("email") or f"label-studio-{completed_by.get('id')}"))
    return annotator_name(f"label-studio-{completed_by}")


def _dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
