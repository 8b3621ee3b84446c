"""A good file of each kind that the product reads, how it is read, and the values in it."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from pytest_defuse.gate.baseline import Baseline, SubjectBaseline, load_baseline, save_baseline
from pytest_defuse.gate.predictions import Predictions
from pytest_defuse.report.html import render_html
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results_file import dump_results, load_results
from pytest_defuse.report.terminal import render
from pytest_defuse.runtime.cache import UnusableError, cached_weights, read_tensors, write_tensors
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.state_files import STRUCTURE, read_state, write_state
from pytest_defuse.runtime.training import Training
from pytest_defuse.scenarios.decisions import tally_of
from pytest_defuse.scenarios.exchange.ballots import SHEET_KEY, TILE_KEY, import_ballots
from pytest_defuse.scenarios.exchange.ground_truth import read_manifest
from pytest_defuse.scenarios.exchange.label_studio import read_export
from pytest_defuse.scenarios.machine import json_hash
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from tests.scenarios.broken import good_store
from tests.siege.mutations import changed, changed_image, changed_tensors, damaged

STORED = Path(__file__).parents[1] / "report" / "stored" / "results-format-1.json"
CONTEXT = {"defuse-tile", "defuse-sheet"}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        content: a good file.
        read: reads a file's bytes as the product does; it raises DefuseError or UnusableError for a wrong file.
        values, dump: the values in a file's bytes, by a plain parser, and the reverse.
        change: changes values.
    """

    content: bytes
    read: Callable[[bytes], object]
    values: Callable[[bytes], Any]
    dump: Callable[[Any], bytes]
    change: Callable[[Any, Random], Any] = changed

    def mutant(self, random: Random) -> bytes:
        """A damaged file: half of them by changed values, half by changed bytes."""
        if random.random() < 0.5:
            return damaged(self.content, random)
        while True:
            try:
                return self.dump(self.change(self.values(self.content), random))
            except (ValueError, TypeError, OverflowError, RecursionError):  # not every value can be written
                continue

    def parses(self, data: bytes) -> bool:
        """Whether a plain parser reads the bytes, so that the product's own checks decide."""
        try:
            self.values(data)
        except Exception:  # plain parsers raise many kinds of errors
            return False
        return True


def kinds(folder: Path) -> dict[str, Kind]:
    """All kinds of files, below a new folder."""
    good = good_store(folder / "store" / "digits")
    store = Store(good.parent)
    scenario = store.get(good.name)
    return {
        "store.yaml": _of_store(store, good.parent / "store.yaml", _yaml, _to_yaml),
        "scenario.yaml": _of_store(store, good / "scenario.yaml", _yaml, _to_yaml),
        "machine.json": _of_store(store, good / "machine.json", json.loads, _to_json),
        "votes": _of_store(store, good / "votes" / "anna.yaml", _yaml, _to_yaml),
        "sheet": _of_store(store, good / "held_out.png", _image, _to_png, changed_image),
        "baseline": _baseline(folder / "baseline.json"),
        "results": _results(folder / "results.json"),
        "Label Studio": _label_studio(scenario),
        "Ground Truth": _ground_truth(scenario),
        "cache header": _cache_header(folder / "header.safetensors"),
        "cache tensors": _cache_tensors(folder / "net.safetensors"),
        "state values": _state_values(folder / "values.state"),
        "state structure": _state_structure(folder / "structure.state"),
    }


def _of_store(
    store: Store,
    path: Path,
    values: Callable[[bytes], Any],
    dump: Callable[[Any], bytes],
    change: Callable[[Any, Random], Any] = changed,
) -> Kind:
    good = path.read_bytes()
    described = path.with_name("scenario.yaml")
    description = described.read_text() if described.exists() else ""

    def read(data: bytes) -> object:
        path.write_bytes(data)
        if path.name == "machine.json" and len(data) % 4:  # mostly with its hash, so that its content counts
            try:
                known, new = (json_hash(json.loads(content)) for content in (good, data))
                described.write_text(description.replace(known, new))
            except (ValueError, RecursionError):
                pass
        try:
            found = [str(problem) for problem in verify([store])]
            assert all("\n" not in problem and len(problem) < 1000 for problem in found)
            for scenario in store.scenarios():
                _use(scenario)
            return found
        finally:
            path.write_bytes(good)
            if description:
                described.write_text(description)

    return Kind(good, read, values, dump, change)


def _use(scenario: Scenario) -> None:
    scenario.pixels("correction")
    scenario.pixels("held_out")
    scenario.counts("held_out")
    if scenario.record.label is not None:
        scenario.recorded_accuracy("held_out")
    if scenario.machine.evidence:
        scenario.machine.evidence.in_words(scenario.record.proposed_label)
    _ = tally_of(scenario).remarks


def _yaml(data: bytes) -> Any:
    return yaml.safe_load(data.decode())


def _to_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode(errors="surrogatepass")


def _to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _image(data: bytes) -> Any:
    return np.array(Image.open(io.BytesIO(data), formats=["PNG"]))


def _to_png(array: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _baseline(path: Path) -> Kind:
    images = Predictions("1" * 64, ("3", "5", "3"), (0.5, 0.75, 1.0))
    part = SubjectBaseline("f" * 64, {"3-as-5-a1b2c3": images}, images, ((1.0, 2.0), (3.0, 4.0)))
    save_baseline(path, Baseline({"digits": part}))

    def read(data: bytes) -> object:
        path.write_bytes(data)
        loaded = load_baseline(path)
        for part in loaded.subjects.values():
            torch.tensor(part.logits or ())
        save_baseline(path, loaded)
        assert load_baseline(path) == loaded
        return loaded

    return Kind(path.read_bytes(), read, json.loads, _to_json)


def _results(path: Path) -> Kind:
    good = dump_results(load_results(STORED, path.parent), path.parent).encode()

    def read(data: bytes) -> object:
        path.write_bytes(data)
        results = load_results(path, path.parent)
        return [
            render(results, width=80, color=False, start=path.parent, verbose=True),
            render_markdown(results),
            render_html(results),
        ]

    return Kind(good, read, json.loads, _to_json)


def _keys(scenario: Scenario, tile: int) -> dict[str, str]:
    sheet = scenario.record.sheets.correction
    return {TILE_KEY: f"{scenario.full_name}/correction/{tile}", SHEET_KEY: sheet.sha256}


def _imports(scenario: Scenario, text: str, read_answers: Callable[[str], Any], **parts: Any) -> Kind:
    votes = scenario.folder / "votes"
    before = {path.name: path.read_bytes() for path in votes.iterdir()}

    def read(data: bytes) -> object:
        try:
            responses = read_answers(data.decode())
        except UnicodeDecodeError as error:
            raise DefuseError("is not UTF-8") from error
        try:
            imported = import_ballots([scenario], "answers", responses)
            scenario.votes()  # what was written is read back
            return imported
        finally:
            shutil.rmtree(votes)
            votes.mkdir()
            for name, content in before.items():
                (votes / name).write_bytes(content)

    return Kind(text.encode(), read, **parts)


def _label_studio(scenario: Scenario) -> Kind:
    tasks = [
        {
            "id": tile + 1,
            "data": {"image": "x.png", **_keys(scenario, tile)},
            "annotations": [
                {
                    "completed_by": {"id": 4, "email": "anna@example.org"} if tile % 2 else 10,
                    "result": [{"type": "choices", "value": {"choices": ["3"]}}],
                    "was_cancelled": False,
                    "updated_at": "2021-03-09T22:16:08Z",
                }
            ],
            "predictions": [{"model_version": "m", "result": [{"type": "choices", "value": {"choices": ["5"]}}]}],
        }
        for tile in range(3)
    ]
    return _imports(scenario, json.dumps(tasks), read_export, values=json.loads, dump=_to_json)


def _ground_truth(scenario: Scenario) -> Kind:
    metadata = {"class-name": "3", "type": "groundtruth/image-classification", "job-name": "a/b"}
    worker = {"workerId": "w1", "annotationData": {"content": '{"label": "5"}'}}
    lines = [
        {"source-ref": "s3://x", **_keys(scenario, 0), "d": "1", "d-metadata": metadata | {"human-annotated": "yes"}},
        {
            "source-ref": "s3://y",
            **_keys(scenario, 1),
            "d": {"annotationsFromAllWorkers": [worker]},
            "d-metadata": {"type": "groundtruth/custom"},
        },
    ]

    def values(data: bytes) -> Any:
        return [json.loads(line) for line in data.splitlines() if line.strip()]

    def dump(items: Any) -> bytes:
        return b"\n".join(map(_to_json, items if isinstance(items, list) else [items]))

    return _imports(scenario, dump(lines).decode(), read_manifest, values=values, dump=dump)


def _network(value: int = 3) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    _fill(network, value)
    return network


def _fill(network: nn.Module, value: int) -> None:
    for tensor in network.state_dict().values():
        tensor.fill_(value)


def _cached(path: Path, *, whole: bool) -> tuple[bytes, Callable[[bytes], object]]:
    """Weights of 3; where the file is damaged, they are trained again. ``whole``: a file that is used has no others."""
    write_tensors(_network().state_dict(), path)

    def read(data: bytes) -> object:
        path.write_bytes(data)
        network, sentences = _network(0), list[str]()
        cached_weights(network, path, lambda: _fill(network, 3), sentences.append)
        assert not whole or all((tensor == 3).all() for tensor in network.state_dict().values())
        return sentences

    return path.read_bytes(), read


def _cache_header(path: Path) -> Kind:
    """The header of the format: 8 bytes of its length, and JSON."""
    content, read = _cached(path, whole=True)

    def values(data: bytes) -> Any:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        return {"header": header, "length": size, "data": data[8 + size :].hex()}

    def dump(value: Any) -> bytes:
        text = json.dumps(value["header"]).encode()
        return len(text).to_bytes(8, "little") + text + bytes.fromhex(value["data"])

    def change(value: Any, random: Random) -> Any:
        return value | {"header": changed(value["header"], random)}

    return Kind(content, read, values, dump, change)


def _cache_tensors(path: Path) -> Kind:
    """Another set of tensors, with a checksum."""
    content, read = _cached(path, whole=False)
    return Kind(content, read, _tensors(path), _to_tensors(path), changed_tensors)


def _tensors(path: Path) -> Callable[[bytes], Any]:
    def values(data: bytes) -> Any:
        path.write_bytes(data)
        return {name: tensor.clone() for name, tensor in read_tensors(path).items()}

    return values


def _to_tensors(path: Path) -> Callable[[Any], bytes]:
    def dump(value: Any) -> bytes:
        write_tensors(value, path)
        return path.read_bytes()

    return dump


def _training(path: Path) -> Training:
    network = _network()

    def gradients(step: int) -> torch.Tensor:
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        return torch.tensor(float(step))

    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    return Training(network, optimizer, gradients, lambda step: 0.01, 0, "training", path)


def _trained(path: Path) -> tuple[bytes, Callable[[bytes], object]]:
    _training(path).run(2, lambda *_: None, lambda _: None)

    def read(data: bytes) -> object:
        path.write_bytes(data)
        sentences: list[str] = []
        _training(path).run(4, lambda *_: None, sentences.append)
        return sentences

    return path.read_bytes(), read


def _state_values(path: Path) -> Kind:
    content, read = _trained(path)

    def values(data: bytes) -> Any:
        path.write_bytes(data)
        if (value := read_state(path)) is None:
            raise UnusableError("is damaged")
        return value

    def dump(value: Any) -> bytes:
        write_state(value, path)
        return path.read_bytes()

    return Kind(content, read, values, dump)


def _state_structure(path: Path) -> Kind:
    """The JSON that nests the tensors."""
    content, read = _trained(path)
    tensors = _tensors(path)

    def values(data: bytes) -> Any:
        found = tensors(data)
        return {"structure": json.loads(bytes(found.pop(STRUCTURE).tolist())), "tensors": found}

    def dump(value: Any) -> bytes:
        structure = torch.frombuffer(bytearray(json.dumps(value["structure"]).encode()), dtype=torch.uint8)
        write_tensors({**value["tensors"], STRUCTURE: structure}, path)
        return path.read_bytes()

    def change(value: Any, random: Random) -> Any:
        return value | {"structure": changed(value["structure"], random)}

    return Kind(content, read, values, dump, change)
