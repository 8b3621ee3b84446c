"""A corpus of broken stores: the damage to a good store, and what the error must say."""

import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from pytest_defuse.scenarios.machine import json_hash
from pytest_defuse.scenarios.sheets import encode_sheet
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import machine_of, plant, random_tiles

CORRECTION, HELD_OUT = random_tiles(), random_tiles(seed=1)
Damage = Callable[[Path], None]


def good_store(folder: Path) -> Path:
    """A store with one scenario that has everything a scenario can have; the scenario's folder."""
    region = {"generator": "c" * 64, "weight": 0.25, "tau": 0.5, "mean": [0.5, -1], "covariance": [[2, 1], [1, 3]]}
    evidence = {
        "nearest_images": [7, 9],
        "nearest_labels": ["3", "5"],
        "nearest_distances": [0.5, 0.75],
        "source_labels": {"3": 4},
    }
    tiles = {"predicted": ["5", "5", "5", "3"], "sources": ["d" * 64] * 4}
    machine = machine_of(correction=tiles, held_out=tiles, region=region, evidence=evidence)
    store = Store(folder)
    scenario = plant(store, CORRECTION, HELD_OUT, machine=machine)
    store.vote(scenario.id, "anna", {"correction": {0: "3", 1: None}})
    return scenario.folder


def scenario(old: str, new: str) -> Damage:
    """An edit of scenario.yaml by hand."""
    return lambda folder: edit(folder / "scenario.yaml", old, new)


def machine(old: str, new: str) -> Damage:
    """Another machine.json, which scenario.yaml names."""

    def damage(folder: Path) -> None:
        path = folder / "machine.json"
        before = json_hash(json.loads(path.read_text()))
        edit(path, old, new)
        edit(folder / "scenario.yaml", before, json_hash(json.loads(path.read_text())))

    return damage


def store(old: str, new: str) -> Damage:
    """An edit of store.yaml by hand."""
    return lambda folder: edit(folder.parent / "store.yaml", old, new)


def votes(old: str, new: str) -> Damage:
    """An edit of a file of votes by hand."""
    return lambda folder: edit(folder / "votes" / "anna.yaml", old, new)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


def content(name: str, data: bytes) -> Damage:
    """Another content of a file of the scenario."""
    return lambda folder: replace(folder / name, data)


def replace(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def link(name: str) -> Damage:
    """A symbolic link, in place of a file or folder, to where that was moved: out of the store."""

    def damage(folder: Path) -> None:
        place = folder / name
        moved = folder.parents[1] / "elsewhere"
        place.rename(moved)
        place.symlink_to(moved)

    return damage


def link_to_scenario(folder: Path) -> None:
    moved = folder.rename(folder.parents[1] / "elsewhere")
    folder.symlink_to(moved)


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with checksums that are right and next to no data."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100))),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(encode_sheet(HELD_OUT))).save(buffer, "JPEG")
    return buffer.getvalue()


def hundred_huge_tiles(folder: Path) -> None:
    edits = {"width: 8": "width: 1024", "height: 8": "height: 1024", "images: 4": "images: 100", '"5": 3': '"5": 99'}
    for old, new in edits.items():
        edit(folder / "scenario.yaml", old, new)


def to_folder(folder: Path) -> None:
    (folder / "held_out.png").unlink()
    (folder / "held_out.png").mkdir()


def to_pipe(folder: Path) -> None:
    (folder / "held_out.png").unlink()
    os.mkfifo(folder / "held_out.png")


def same_again(folder: Path) -> None:
    plant(Store(folder.parent), random_tiles(seed=5), HELD_OUT, "8", "2")


def held_out_as_correction(folder: Path) -> None:
    shutil.rmtree(folder)
    plant(Store(folder.parent), HELD_OUT, HELD_OUT)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
COVARIANCE = "[[2.0, 1.0], [1.0, 3.0]]"

# name -> (damage, the file that is named, what is said of it)
BROKEN: dict[str, tuple[Damage, str, str]] = {
    # YAML
    "empty": (content("scenario.yaml", b""), "scenario.yaml:1", "the file is empty"),
    "cut off": (content("scenario.yaml", b"format: 1\nid: ["), "scenario.yaml:2", "not valid YAML ("),
    "tab": (content("scenario.yaml", b"format: 1\n\tid: x"), "scenario.yaml:2", "not valid YAML ("),
    "duplicate key": (scenario("label: null", "label: 3\nlabel: 5"), "scenario.yaml:6", "key 'label' is given twice"),
    "duplicate key deep": (scenario("failed: 58", "failed: 58, failed: 58"), "scenario.yaml:10", "'failed' is given"),
    "alias": (content("scenario.yaml", b"a: &a 1\nb: *a\n"), "scenario.yaml:2", "aliases are not supported"),
    "two documents": (content("scenario.yaml", b"format: 1\n---\nformat: 1\n"), "scenario.yaml:2", "not valid YAML ("),
    "a list": (content("scenario.yaml", b"- 1\n"), "scenario.yaml:1", "the file: must be a mapping"),
    "key of a list": (content("scenario.yaml", b"[1]: x\n"), "scenario.yaml:1", "a key must be plain text"),
    "NUL": (content("scenario.yaml", b"notes: \x00"), "scenario.yaml:1", "not valid YAML ("),
    "impossible escape": (content("scenario.yaml", b'notes: "\\UFFFFFFFF"'), "scenario.yaml:1", "not valid YAML ("),
    "too deep": (content("scenario.yaml", b"[" * 100), "scenario.yaml:1", "it is nested too deeply"),
    "far too deep": (content("scenario.yaml", b"[" * 5000), "scenario.yaml:1", "not valid YAML"),
    "Latin-1": (content("scenario.yaml", "notes: Größe".encode("latin-1")), "scenario.yaml", "is not UTF-8 text ("),
    "UTF-16": (content("scenario.yaml", "notes: x".encode("utf-16")), "scenario.yaml", "is not UTF-8 text"),
    "merge conflict": (
        scenario("label: null", "<<<<<<< HEAD\nlabel: 3\n=======\nlabel: 5\n>>>>>>> other"),
        "scenario.yaml:5",
        "holds a merge conflict: keep one of the two versions",
    ),
    "YAML as LFS pointer": (content("scenario.yaml", LFS), "scenario.yaml", "is a Git LFS pointer, not the file"),
    "YAML of megabytes": (content("scenario.yaml", b"#" * 2**23), "scenario.yaml", "has 8,388,608 bytes, more than"),
    "YAML of another version": (
        content("scenario.yaml", b"%YAML 3.0\n---\nformat: 1"),
        "scenario.yaml:1",
        "not valid YAML (",
    ),
    "code in a tag": (
        scenario('notes: ""', "notes: !!python/object/apply:os.getcwd []"),
        "scenario.yaml:8",
        "notes: must be a string",
    ),
    # keys and types
    "unknown status": (scenario('"candidate"', "acepted"), "scenario.yaml:4", "status: must be 'candidate'"),
    "unknown key": (scenario("notes:", "note:"), "scenario.yaml:8", "note: is not a known key"),
    "missing key": (scenario('proposed_label: "3"\n', ""), "scenario.yaml:2", "proposed_label: is missing"),
    "text for a number": (
        scenario("failed: 58", "failed: many"),
        "scenario.yaml:10",
        "failure_rate.failed: must be a whole number",
    ),
    "negative count": (
        scenario("failed: 58", "failed: -1"),
        "scenario.yaml:10",
        "failure_rate.failed: must be >= 0",
    ),
    "more failed than drawn": (scenario("failed: 58", "failed: 65"), "scenario.yaml:10", "but only 64 were drawn"),
    "nothing drawn": (scenario("drawn: 64", "drawn: 0"), "scenario.yaml:10", "drawn: must be >= 1"),
    "per cent": (scenario("low: 0.81", "low: 81%"), "scenario.yaml:10", "low: must be a number"),
    "share above one": (scenario("high: 0.96", "high: 1.5"), "scenario.yaml:10", "high: must be <= 1"),
    "interval upside down": (scenario("low: 0.81", "low: 0.97"), "scenario.yaml:10", "low is 0.97, above high"),
    "mode": (scenario('mode: "L"', "mode: CMYK"), "scenario.yaml:11", "tile.mode: must be 'L' or 'RGB'"),
    "no width": (scenario("width: 8", "width: 0"), "scenario.yaml:11", "tile.width: must be >= 1"),
    "huge tile": (scenario("height: 8", "height: 50000"), "scenario.yaml:11", "tile.height: must be <= 1024"),
    "no images": (scenario("images: 4", "images: 0"), "scenario.yaml:15", "images: must be >= 1"),
    "counts": (scenario("images: 4", "images: 5"), "scenario.yaml:17", "predicted counts 4 tiles, but images is 5"),
    "hash": (machine('"generator": "c', '"generator": "C'), "machine.json", "region.generator: must match the pattern"),
    "tile predicted twice": (
        machine('["5", "5", "5", "3"]', '["5", "5", "5", "5", "3"]'),
        "scenario.yaml:17",
        "counts other predictions than those recorded for each tile",
    ),
    "predictions at odds": (
        machine('["5", "5", "5", "3"]', '["5", "5", "3", "3"]'),
        "scenario.yaml:17",
        "sheets.correction.predicted: counts other predictions",
    ),
    "source missing": (
        lambda f: machine(json.dumps(["d" * 64] * 4), json.dumps(["d" * 64] * 3))(f),
        "scenario.yaml:15",
        "the sheet has 4 tiles, but machine.json has 3 sources",
    ),
    "source by path": (
        machine("d" * 64, "/data/3.png"),
        "machine.json",
        "correction.sources.0: must match the",
    ),
    "labels without classes": (
        scenario("label: null", "label: null\nlabels: per image"),
        "scenario.yaml:6",
        "labels: per image requires a class for each tile of correction in machine.json",
    ),
    "label beside labels": (
        scenario("label: null", "label: 3\nlabels: per image"),
        "scenario.yaml:5",
        "each image has its own label (labels: per image), so label must be null",
    ),
    "classes without labels": (
        machine('"labels": null', '"labels": ["3", "3", "3", "8"]'),
        "scenario.yaml:2",
        "labels: per image requires a class",
    ),
    "no failure rate": (
        lambda f: edit(f / "scenario.yaml", (f / "scenario.yaml").read_text().splitlines()[9] + "\n", ""),
        "scenario.yaml:2",
        "failure_rate: is missing; only a scenario with method: reported can leave it out",
    ),
    "no predictions": (
        scenario('    predicted: {"5": 3, "3": 1}\n', ""),
        "scenario.yaml:13",
        "sheets: correction.predicted is missing",
    ),
    "gap": (scenario("gap: 0", "gap: -1"), "scenario.yaml:12", "gap: must be >= 0"),
    # machine.json
    "no machine.json": (lambda f: (f / "machine.json").unlink(), "machine.json", "is missing: restore it from git"),
    "edited machine.json": (
        lambda f: edit(f / "machine.json", '"weight": 0.25', '"weight": 0.5'),
        "machine.json",
        "does not match the hash in scenario.yaml: restore both from the same commit",
    ),
    "another hash": (
        lambda f: edit(f / "scenario.yaml", (f / "scenario.yaml").read_text()[-66:-2], "0" * 64),
        "machine.json",
        "does not match the hash in scenario.yaml",
    ),
    "no hash": (
        lambda f: edit(f / "scenario.yaml", (f / "scenario.yaml").read_text().splitlines()[29], ""),
        "scenario.yaml:2",
        "machine: is missing",
    ),
    "machine.json cut off": (content("machine.json", b'{"format": 2, '), "machine.json", "is not valid JSON: restore"),
    "machine.json too deep": (content("machine.json", b"[" * 10**6), "machine.json", "is not valid JSON: restore"),
    "machine.json as LFS pointer": (content("machine.json", LFS), "machine.json", "is a Git LFS pointer, not the file"),
    "newer machine.json": (
        machine('"format": 2', '"format": 3'),
        "machine.json",
        "has format 3, but this pytest-defuse",
    ),
    "linked machine.json": (link("machine.json"), "machine.json", "is a symbolic link: put the file itself"),
    "unknown key of machine.json": (
        machine('"format": 2', '"format": 2, "path": "x"'),
        "machine.json",
        "path: is not a known key",
    ),
    "unknown region": (machine('"latent"', '"cube"'), "machine.json", "region.kind: must be 'latent'"),
    "tile that is not": (scenario("excluded: []", "excluded: [4]"), "scenario.yaml:18", "excluded names tile 4, but"),
    "all excluded": (
        scenario("excluded: []", "excluded: [0, 1, 2, 3]"),
        "scenario.yaml:18",
        "excluded names every tile",
    ),
    "negative tile": (scenario("excluded: []", "excluded: [-1]"), "scenario.yaml:18", "excluded.0: must be >= 0"),
    "tile by name": (
        scenario("excluded: []", "excluded: [one]"),
        "scenario.yaml:18",
        "excluded.0: must be a whole number",
    ),
    "NaN in a mean": (machine('"mean": [0.5', '"mean": [NaN'), "machine.json", "mean.0: must be a finite number"),
    "infinity": (machine("[[2.0,", "[[Infinity,"), "machine.json", "covariance.0.0: must be a finite number"),
    "covariance of another size": (machine(", [1.0, 3.0]", ""), "machine.json", "covariance must be 2 x 2"),
    "covariance not symmetric": (machine("[1.0, 3.0]", "[1.5, 3.0]"), "machine.json", "covariance is not symmetric"),
    "non-positive covariance": (machine("[1.0, 3.0]", "[1.0, -3.0]"), "machine.json", "is not positive definite"),
    "singular covariance": (
        machine(COVARIANCE, "[[1.0, 1.0], [1.0, 1.0]]"),
        "machine.json",
        "region.covariance: covariance is not positive definite",
    ),
    "no tau": (machine('"tau": 0.5', '"tau": 0'), "machine.json", "region.tau: must be > 0"),
    "weight": (machine('"weight": 0.25', '"weight": 2'), "machine.json", "region.weight: must be <= 1"),
    "unknown method": (scenario('method: "defuse"', "method: magic"), "scenario.yaml:24", "method: must be 'defuse'"),
    "seed": (scenario("seed: 0", "seed: lucky"), "scenario.yaml", "provenance.seed: must be a whole number"),
    "versions": (
        scenario('torch: "2.9"', "torch: [2, 9]"),
        "scenario.yaml",
        "provenance.versions.torch: must be a string",
    ),
    "evidence cut off": (machine("[7, 9]", "[7]"), "machine.json", "nearest_distances differ in length"),
    "evidence": (machine("[0.5, 0.75]", "[0.5, -1]"), "machine.json", "nearest_distances.1: must be >= 0"),
    "accepted without label": (scenario('"candidate"', "accepted"), "scenario.yaml:5", "accepted but label is empty"),
    "pixels without end": (
        hundred_huge_tiles,
        "scenario.yaml:13",
        "correction would have 104,857,600 pixels, more than the limit of 67,108,864",
    ),
    # classes, formats, names
    "unknown class": (
        scenario("label: null", "label: cat"),
        "scenario.yaml:5",
        "label: 'cat' is not one of the classes",
    ),
    "unknown proposal": (scenario('label: "3"', "label: dog"), "scenario.yaml:6", "proposed_label: 'dog' is not one"),
    "unknown prediction": (
        scenario('"5": 3', '"owl": 3'),
        "scenario.yaml:17",
        "predicted: counts other predictions than those recorded for each tile",
    ),
    "unknown prediction, also of its tile": (
        lambda f: (
            machine('["5", "5", "5", "3"]', '["5", "5", "5", "owl"]')(f),
            edit(f / "scenario.yaml", '"3": 1', '"owl": 1'),
        ),
        "scenario.yaml:17",
        "sheets.correction.predicted.owl: 'owl' is not one of the classes",
    ),
    "unknown evidence": (
        machine('["3", "5"]', '["3", "x"]'),
        "scenario.yaml:30",
        "machine.evidence.nearest_labels: 'x' is not",
    ),
    "newer format": (scenario("format: 2", "format: 3"), "scenario.yaml", "has format 3, but this pytest-defuse reads"),
    "no format": (scenario("format: 2", "format: one"), "scenario.yaml:2", "format: must be a whole number"),
    "path out of the store": (scenario('id: "3', 'id: "../3'), "scenario.yaml:3", "id: must match the pattern"),
    "absolute path": (scenario('id: "', 'id: "/etc/'), "scenario.yaml:3", "(it is '/etc/3-as-5-"),
    "long id": (scenario('id: "', 'id: "' + "x" * 99), "scenario.yaml:3", "id: must have at most 48 characters"),
    "folder of another name": (
        lambda f: f.rename(f.with_name("copy")) and None,
        "scenario.yaml:3",
        "but the folder is",
    ),
    # sheets
    "missing sheet": (lambda f: (f / "held_out.png").unlink(), "held_out.png", "is missing: restore it from git"),
    "truncated sheet": (
        lambda f: replace(f / "held_out.png", (f / "held_out.png").read_bytes()[:100]),
        "held_out.png",
        "is not a readable PNG (",
    ),
    "empty sheet": (content("held_out.png", b""), "held_out.png", "is not a readable PNG ("),
    "JPEG": (content("held_out.png", jpeg()), "held_out.png", "is not a readable PNG ("),
    "sheet as LFS pointer": (content("held_out.png", LFS), "held_out.png", "is a Git LFS pointer, not the file"),
    "other pixels": (content("held_out.png", encode_sheet(CORRECTION)), "held_out.png", "holds other pixels than its"),
    "mixed sizes": (
        content("held_out.png", encode_sheet(random_tiles(4, width=9))),
        "held_out.png",
        "is 18 x 16, but 4 tiles of 8 x 8 make 16 x 16",
    ),
    "50,000 x 50,000": (
        content("held_out.png", png(50_000, 50_000)),
        "held_out.png",
        "claims to be larger than any",
    ),
    "9,000 x 9,000": (content("held_out.png", png(9_000, 9_000)), "held_out.png", "is 9000 x 9000, but 4 tiles of"),
    "linked sheet": (link("held_out.png"), "held_out.png", "is a symbolic link: put the file itself"),
    "sheet is a folder": (to_folder, "held_out.png", "is not a file: restore it from git"),
    "sheet is a pipe": (to_pipe, "held_out.png", "is not a file: restore it from git"),
    # folders
    "linked scenario": (link_to_scenario, "", "is a symbolic link: put the folder itself in its place"),
    "linked YAML": (link("scenario.yaml"), "scenario.yaml", "is a symbolic link: put the file itself"),
    "linked votes": (link("votes"), "votes", "is a symbolic link: put the folder itself in its place"),
    "no scenario.yaml": (lambda f: (f / "scenario.yaml").unlink(), "scenario.yaml", "is missing: restore it from git"),
    "stray file": (lambda f: (f / "notes.txt").touch(), "notes.txt", "belongs to no scenario: move it away"),
    "stray file above": (
        lambda f: (f.parent / "old.zip").touch(),
        "../old.zip",
        "belongs to no scenario: move it away",
    ),
    "stray folder": (lambda f: (f.parent / "new").mkdir(), "../new/scenario.yaml", "is missing: restore it from git"),
    # store.yaml
    "no store.yaml": (lambda f: (f.parent / "store.yaml").unlink(), "../store.yaml", "is missing: restore it from git"),
    "class twice": (store('"1"', '"0"'), "../store.yaml:3", "classes: class '0' is given twice"),
    "no classes": (
        lambda f: edit(f.parent / "store.yaml", (f.parent / "store.yaml").read_text().splitlines()[2], "classes: []"),
        "../store.yaml:3",
        "classes: must have 1 or more entries",
    ),
    "store of other tiles": (
        store("width: 8", "width: 9"),
        "scenario.yaml:11",
        "tile: differs from that of store.yaml",
    ),
    "budget": (
        store("tiles: 256", "tiles: none"),
        "../store.yaml:5",
        "budgets.tiles: must be a whole number",
    ),
    "rho": (store("rho: 0.5", "rho: 50"), "../store.yaml:6", "voting.rho: must be <= 1"),
    "newer store": (store("format: 2", "format: 7"), "../store.yaml", "has format 7, but this pytest-defuse reads"),
    # votes
    "votes of another": (votes('"anna"', '"bob"'), "votes/anna.yaml:3", "it is 'bob', but the file is 'anna.yaml'"),
    "vote for no class": (votes('"3": ', '"cat": '), "votes/anna.yaml:8", "'cat' is not one of the classes"),
    "vote on no tile": (votes('"3": [0]', '"3": [9]'), "votes/anna.yaml:5", "votes on tile 9, but the sheet has tiles"),
    "two votes on a tile": (votes('"3": [0]', '"3": [0, 1]'), "votes/anna.yaml:7", "tile 1 has two votes: keep one"),
    "votes on other sheets": (
        lambda f: edit(f / "votes/anna.yaml", (f / "votes/anna.yaml").read_text().split('"')[5], "0" * 64),
        "votes/anna.yaml:6",
        "these votes are on other pixels than correction.png",
    ),
    "who votes": (votes('"human"', "robot"), "votes/anna.yaml:4", "kind: must be 'human' or 'model'"),
    "stray vote": (lambda f: (f / "votes/anna.csv").touch(), "votes/anna.csv", "is not a file of votes: move it away"),
    # pixels that are there twice
    "duplicates": (same_again, "../8-as-2-{hash}/held_out.png", "4 of its 4 tiles are pixel for pixel in"),
    "held-out tiles seen before": (held_out_as_correction, "held_out.png", "4 of its 4 tiles are pixel for pixel in"),
}
