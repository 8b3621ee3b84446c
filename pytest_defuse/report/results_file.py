"""The results of a run as one JSON file, from which ``pytest-defuse report`` renders every report again."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from pytest_defuse.discover.results import CandidateResult, DiscoveryResult
from pytest_defuse.gate.results import ScenarioResult
from pytest_defuse.report.results import AnyVerdict, Results
from pytest_defuse.report.words import relative
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_text
from pytest_defuse.runtime.json_text import check_json_size, parse_json, read_text
from pytest_defuse.runtime.validation import first_invalid_value, shortened

FORMAT = 2
"""Format 1 stored what verdicts now derive, and both counts and rates of a tree's nodes."""
DERIVED = ("correct", "total", "outcome", "bound", "reason")
"""Properties of a verdict that the file also contains, for other tools. They are not read back."""
OUTCOMES = {"holds": "PASS", "fails": "FAIL", "unsure": "INCONCLUSIVE"}
"""Names of outcomes in format 1."""


def dump_results(results: Results, start: Path) -> str:
    """All results as JSON, with paths relative to ``start``, so that the file is valid on another machine."""
    moved = _with_paths(results, lambda path: Path(relative(path, start)).as_posix())
    data = asdict(moved)
    for group in ("scenarios", "test_sets", "overall"):
        for values, verdict in zip(data[group], getattr(moved, group), strict=True):
            values |= {name: getattr(verdict, name) for name in DERIVED}
    return json.dumps({"format": FORMAT, "pytest-defuse": version("pytest-defuse"), **data}) + "\n"


def save_results(path: Path, results: Results) -> None:
    """Write results to a file; a DefuseError if they are too many to be read back."""
    text = dump_results(results, Path())
    check_json_size(len(text), path)  # it is ASCII
    replace_text(path, text)


def load_results(path: Path, start: Path) -> Results:
    """Read a file of :func:`dump_results` of this or an earlier version; relative paths begin at ``start``.

    Raises:
        DefuseError: the file cannot be read, is too large, has a newer format, contains no results, or contradicts
            itself.
    """
    make = f"make it with pytest --defuse-results={path}"
    try:
        data = parse_json(read_text(path, make))
    except ValueError as error:
        raise DefuseError(f"{path} is not JSON that can be read ({error}): {make}.") from error
    number = data.get("format") if isinstance(data, dict) else None
    if not isinstance(number, int) or number < 1:
        raise DefuseError(f"{path} contains no results of a run: {make}.")
    if number > FORMAT:
        reads = f"this pytest-defuse reads formats up to {FORMAT}"
        raise DefuseError(f"{path} has format {shortened(str(number))}, but {reads}: upgrade it.")
    try:
        results: Results = _validator().validate_python(_upgraded(data) if number < FORMAT else data)
    except ValidationError as error:
        raise DefuseError(f"{path}: {first_invalid_value(error)}: {make}.") from error
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise DefuseError(f"{path} contains no results in format {number}: {make}.") from error
    if contradiction := next(_contradictions(results, data if number == FORMAT else {}), None):
        raise DefuseError(f"{path} contradicts itself, {contradiction}: {make}.")
    return _with_paths(results.merged(), lambda name: os.path.normpath(start.absolute() / name))


@cache
def _validator() -> SchemaValidator:
    """The validator of Results; of a list with many wrong entries it reports the first."""

    def fail_fast(schema: Any) -> Any:
        if isinstance(schema, dict):
            stop = {"fail_fast": True} if schema.get("type") in ("list", "tuple") else {}
            return {key: fail_fast(value) for key, value in schema.items()} | stop
        return [fail_fast(part) for part in schema] if isinstance(schema, list) else schema

    return SchemaValidator(fail_fast(TypeAdapter(Results).core_schema))


def _contradictions(results: Results, data: Mapping[str, Any]) -> Iterator[str]:
    """Where parts of a verdict contradict each other, or its derived values in ``data``, in words."""
    for group in ("scenarios", "overall", "test_sets"):
        for index, verdict in enumerate(getattr(results, group)):
            place = f"{group}.{index}"
            yield from (f"{place}: {words}" for words in _contradictions_of(verdict))
            stored = data[group][index] if group in data else {}
            for name in ("correct", "total", "outcome"):
                if name in stored and stored[name] != getattr(verdict, name):
                    yield f"{place}: {name} is {stored[name]!r}, but the rest says {getattr(verdict, name)!r}"
    for discovery in results.discoveries:
        yield from (f"discoveries: {words}" for words in _contradictions_of_discovery(discovery))


def _contradictions_of_discovery(discovery: DiscoveryResult) -> Iterator[str]:
    for novelty in (candidate.novelty for candidate in discovery.new if candidate.novelty):
        if {len(novelty.labels), len(novelty.predicted), len(novelty.distances)} != {len(novelty.tiles) or 1}:
            yield f"novelty has {len(novelty.tiles)} tiles, and other numbers of labels, predictions or distances"
    if known := discovery.latent_map:
        expected = len(known.labels) + known.failures + len(known.candidates)
        if not known.labels or known.failures < 0 or any(len(p) != expected for p in known.projections.values()):
            yield f"latent_map has {expected} images, failures and candidates, but other numbers of points"


def _contradictions_of(verdict: AnyVerdict) -> Iterator[str]:
    predictions, total = verdict.predictions, verdict.total
    columns: dict[str, Any] = {"predicted": predictions.predicted, "baseline": predictions.baseline}
    if not 0 < verdict.confidence < 1:
        yield f"confidence is {verdict.confidence}"
    if not all(0 <= confidence <= 1 for confidence in predictions.confidences):
        yield "confidences are not all from 0 to 1"
    if predictions.confidences:
        columns["confidences"] = predictions.confidences
    if isinstance(verdict, ScenarioResult):
        columns["tiles"] = verdict.tiles or range(total)
        if verdict.tiles and not (0 <= min(verdict.tiles) <= max(verdict.tiles) < (verdict.sheet_tiles or 2**63)):
            yield f"tiles are {min(verdict.tiles)} to {max(verdict.tiles)}, of a sheet of {verdict.sheet_tiles}"
    yield from (f"{total} labels, but {len(c)} {name}" for name, c in columns.items() if len(c) != total)
    flips = [*verdict.comparison.lost, *verdict.comparison.gained] if verdict.comparison else []
    if flips and not 0 <= min(flips) <= max(flips) < total:
        yield f"flips from image {min(flips)} to {max(flips)}, but {total} images"


def _with_paths(results: Results, move: Callable[[str], str]) -> Results:
    """The results with every path changed."""

    def moved(candidates: list[CandidateResult]) -> list[CandidateResult]:
        return [replace(candidate, folder=move(candidate.folder)) for candidate in candidates]

    return replace(
        results,
        scenarios=[replace(scenario, folder=move(scenario.folder)) for scenario in results.scenarios],
        discoveries=[replace(discovery, new=moved(discovery.new)) for discovery in results.discoveries],
        explanations=[replace(explanation, new=moved(explanation.new)) for explanation in results.explanations],
        corrections=[replace(correction, output=move(correction.output)) for correction in results.corrections],
    )


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """Format 1 converted to format 2, in place."""
    for verdict in [*data.get("scenarios", []), *data.get("test_sets", []), *data.get("overall", [])]:
        comparison = verdict.get("comparison")
        total = len(verdict["predicted"])
        verdict["predictions"] = {
            "sha256": verdict.get("images", ""),
            "predicted": verdict["predicted"],
            "confidences": verdict.get("confidences", []),
            "labels": verdict.get("labels") or [verdict["label"]] * total,
            "baseline": comparison["predicted"] if comparison else [None] * total,
            "same_model": bool(comparison and comparison["same_model"]),
        }
        verdict["correct_before"] = verdict.get("before")
        for part in [*verdict.get("checks", []), *([comparison] if comparison else [])]:
            part["total"] = part["images"]
        for check in verdict.get("checks", []):
            check |= {"outcome": OUTCOMES[check["outcome"]], "images_needed": check.get("enough")}
    for correction in data.get("corrections", []):
        shifts = correction.get("shifts", {}).items()
        correction["notes"] = [
            *(f"shift set {name}: {before:.1%} before, {after:.1%} after" for name, (before, after) in shifts),
            *correction.get("found", []),
        ]
        correction |= {"gained": correction.get("won", 0), "image_passes": correction.get("images", 0)}
        for trial in [correction["before"], *correction["trials"]]:
            trial |= {
                "lambda_": trial["weight"],
                "learning_rate": trial.get("rate", 0.0),
                "mean_accuracy": trial.get("health"),
            }
        for entry in correction.get("classes", []):
            entry["gained"] = entry["won"]
        for flip in correction.get("flips", []):
            flip |= {"kind": flip["kind"].replace("won", "gained"), "image": flip["picture"]}
    for explanation in data.get("explanations", []):
        for tree in explanation.get("trees", []):
            _upgrade_node(tree["root"], tree["root"]["images"])
    return data


def _upgrade_node(node: dict[str, Any], group_images: int) -> None:
    counts = {name: node[name] for name in ("failures", "images", "group_failures")}
    node["cluster"] = {**counts, "group_images": group_images}
    for child in node["children"]:
        _upgrade_node(child, group_images)
