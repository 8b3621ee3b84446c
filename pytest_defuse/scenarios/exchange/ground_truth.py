"""Amazon SageMaker Ground Truth: exported as an input manifest, imported from output manifests.

Format: https://docs.aws.amazon.com/sagemaker/latest/dg/sms-data-output.html. A built-in job gives one consolidated
label per image, which counts as the vote of the job. A custom job whose post-annotation function keeps the answers
gives each worker's.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pytest_defuse.runtime.files import replace_text
from pytest_defuse.runtime.json_text import parse_json
from pytest_defuse.runtime.validation import shortened
from pytest_defuse.scenarios.exchange.ballots import Ballot, Item, Kind, Responses, annotator_name

METADATA = "-metadata"


def write_manifest(folder: Path, items: Sequence[Item], choices: Sequence[str]) -> None:
    """Write ``input.manifest``, one JSON object per line, and the label categories, ``labels.json``."""
    lines = [json.dumps({"source-ref": image, **keys}) for image, keys in items]
    replace_text(folder / "input.manifest", "".join(f"{line}\n" for line in lines))
    categories = {"document-version": "2018-11-28", "labels": [{"label": choice} for choice in choices]}
    replace_text(folder / "labels.json", json.dumps(categories, indent=1) + "\n")


def read_manifest(text: str) -> Responses:
    """The answers in an output manifest, of all its classification jobs."""
    lines = enumerate(text.splitlines(), start=1)
    return [list(_answers(line, f"line {number}")) for number, line in lines if line.strip()]


def _answers(line: str, where: str) -> Iterator[Ballot | str]:
    """The answers on one image, of each job by its label attribute; a job that failed on it gave none."""
    try:
        item = parse_json(line)
    except ValueError:
        item = None
    if not isinstance(item, dict):
        yield f"{where}: it is not a JSON object."
        return
    for key, metadata in item.items():
        attribute = key.removesuffix(METADATA)
        if attribute == key or attribute not in item or not isinstance(metadata, dict) or "failure-reason" in metadata:
            continue
        value = item[attribute]
        if isinstance(value, dict) and isinstance(value.get("annotationsFromAllWorkers"), list):
            yield from (_worker(answer, where, item) for answer in value["annotationsFromAllWorkers"])
        elif isinstance(metadata.get("class-name"), str):
            job = annotator_name(str(metadata.get("job-name", attribute)).rpartition("/")[2])
            kind: Kind = "human" if metadata.get("human-annotated") == "yes" else "model"
            yield Ballot(where, job, kind, item, metadata["class-name"])
        else:
            found = shortened(str(metadata.get("type")))
            yield f"{where}: {shortened(attribute)} is of type {found}, not of an image classification."


def _worker(answer: Any, where: str, item: dict[str, Any]) -> Ballot | str:
    """One worker's answer, whose content is JSON in a string."""
    try:
        who = annotator_name(str(answer["workerId"]))
        content = parse_json(answer["annotationData"]["content"])
        labels = [part["label"] for part in (content, *content.values()) if isinstance(part, dict) and "label" in part]
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"{where}: the answer of a worker cannot be read."
    if len(labels) != 1 or not isinstance(labels[0], str):
        return f"{where}: {who} did not choose exactly one class."
    return Ballot(where, who, "human", item, labels[0])
