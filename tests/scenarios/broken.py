"""A corpus of broken stores: how each comes about, and what must be said of it."""

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from pytest_defuse.scenarios.schema import Evidence, LatentRegion
from pytest_defuse.scenarios.sheets import encode_sheet
from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import plant, random_tiles, record_of

CORRECTION, HELD_OUT = random_tiles(), random_tiles(seed=1)
Damage = Callable[[Path], None]


def good_store(folder: Path) -> Path:
    """A store with one scenario that has everything a scenario can have; the scenario's folder."""
    region = LatentRegion(generator="c" * 64, weight=0.25, tau=0.5, mean=[0.5, -1], covariance=[[2, 1], [1, 3]])
    evidence = Evidence(
        nearest_images=[7, 9], nearest_labels=["3", "5"], nearest_distances=[0.5, 0.75], source_labels={"3": 4}
    )
    record = record_of(CORRECTION, HELD_OUT)
    sheets = record.sheets.model_dump()
    for sheet in sheets.values():
        sheet["predicted_tiles"] = {"5": [0, 1, 2], "3": [3]}
    store = Store(folder)
    scenario = plant(
        store, CORRECTION, HELD_OUT, sheets=sheets, region=region.model_dump(), evidence=evidence.model_dump()
    )
    store.vote(scenario.id, "anna", {"correction": {0: "3", 1: None}})
    return scenario.folder


def scenario(old: str, new: str) -> Damage:
    """An edit of scenario.yaml by hand."""
    return lambda folder: edit(folder / "scenario.yaml", old, new)


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


def picture(width: int, height: int) -> bytes:
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
    edits |= {'"5": [0, 1, 2]': f'"5": {list(range(99))}', '"3": [3]': '"3": [99]'}
    for old, new in edits.items():
        edit(folder / "scenario.yaml", old, new)


def taken_for_an_owl(folder: Path) -> None:
    for _ in ("predicted", "predicted_tiles"):
        edit(folder / "scenario.yaml", '"5": ', '"owl": ')


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
IDENTITY = "  covariance:\n  - [2.0, 1.0]\n  - [1.0, 3.0]\n"

# name -> (damage, the file that is named, what is said of it)
BROKEN: dict[str, tuple[Damage, str, str]] = {
    # YAML
    "empty": (content("scenario.yaml", b""), "scenario.yaml:1", "the file is empty"),
    "cut off": (content("scenario.yaml", b"format: 1\nid: ["), "scenario.yaml:2", "not valid YAML ("),
    "tab": (content("scenario.yaml", b"format: 1\n\tid: x"), "scenario.yaml:2", "not valid YAML ("),
    "duplicate key": (scenario("label: null", "label: 3\nlabel: 5"), "scenario.yaml:6", "key 'label' is given twice"),
    "duplicate key deep": (scenario("failed: 58", "failed: 58\n  failed: 58"), "scenario.yaml:11", "'failed' is given"),
    "alias": (content("scenario.yaml", b"a: &a 1\nb: *a\n"), "scenario.yaml:2", "aliases are not used here"),
    "two documents": (content("scenario.yaml", b"format: 1\n---\nformat: 1\n"), "scenario.yaml:2", "not valid YAML ("),
    "a list": (content("scenario.yaml", b"- 1\n"), "scenario.yaml:1", "the file: must hold keys and values"),
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
    "YAML of megabytes": (content("scenario.yaml", b"#" * 2**23), "scenario.yaml", "has 8,388,608 bytes, at most"),
    "YAML of another version": (
        content("scenario.yaml", b"%YAML 3.0\n---\nformat: 1"),
        "scenario.yaml:1",
        "not valid YAML (",
    ),
    "code in a tag": (
        scenario('notes: ""', "notes: !!python/object/apply:os.getcwd []"),
        "scenario.yaml:7",
        "notes: must be text",
    ),
    # keys and types
    "unknown status": (scenario('"candidate"', "acepted"), "scenario.yaml:4", "status: must be 'candidate'"),
    "unknown key": (scenario("notes:", "note:"), "scenario.yaml:7", "note: is not a key that is known here"),
    "missing key": (scenario('proposed_label: "3"\n', ""), "scenario.yaml:2", "proposed_label: is missing"),
    "text for a number": (
        scenario("failed: 58", "failed: many"),
        "scenario.yaml:10",
        "failure_rate.failed: must be a whole number",
    ),
    "negative count": (
        scenario("failed: 58", "failed: -1"),
        "scenario.yaml:10",
        "failure_rate.failed: must be 0 or more",
    ),
    "more failed than drawn": (scenario("failed: 58", "failed: 65"), "scenario.yaml:10", "but only 64 were drawn"),
    "nothing drawn": (scenario("drawn: 64", "drawn: 0"), "scenario.yaml:11", "drawn: must be 1 or more"),
    "per cent": (scenario("low: 0.81", "low: 81%"), "scenario.yaml:12", "low: must be a number"),
    "share above one": (scenario("high: 0.96", "high: 1.5"), "scenario.yaml:13", "high: must be 1 or less"),
    "interval upside down": (scenario("low: 0.81", "low: 0.97"), "scenario.yaml:12", "low is 0.97, above high"),
    "mode": (scenario('mode: "L"', "mode: CMYK"), "scenario.yaml:15", "tile.mode: must be 'L' or 'RGB'"),
    "no width": (scenario("width: 8", "width: 0"), "scenario.yaml:16", "tile.width: must be 1 or more"),
    "huge tile": (scenario("height: 8", "height: 50000"), "scenario.yaml:17", "tile.height: must be 1024 or less"),
    "no images": (scenario("images: 4", "images: 0"), "scenario.yaml:20", "images: must be 1 or more"),
    "counts": (scenario("images: 4", "images: 5"), "scenario.yaml:22", "predicted counts 4 tiles, but images is 5"),
    "hash": (scenario('generator: "c', 'generator: "C'), "scenario.yaml", "generator: must match the pattern"),
    "tile predicted twice": (scenario('"5": [0, 1, 2]', '"5": [0, 1, 1]'), "scenario.yaml:25", "each tile from 0 to 3"),
    "predictions at odds": (
        scenario('"5": [0, 1, 2]\n      "3": [3]', '"5": [0, 1]\n      "3": [2, 3]'),
        "scenario.yaml:25",
        "predicted_tiles and predicted do not count the same tiles",
    ),
    "tile that is not": (scenario("excluded: []", "excluded: [4]"), "scenario.yaml:28", "excluded names tile 4, but"),
    "all excluded": (
        scenario("excluded: []", "excluded: [0, 1, 2, 3]"),
        "scenario.yaml:28",
        "excluded names every tile",
    ),
    "negative tile": (scenario("excluded: []", "excluded: [-1]"), "scenario.yaml:28", "excluded.0: must be 0 or more"),
    "tile by name": (
        scenario("excluded: []", "excluded: [one]"),
        "scenario.yaml:28",
        "excluded.0: must be a whole number",
    ),
    "NaN in a mean": (scenario("mean: [0.5", "mean: [nan"), "scenario.yaml", "mean.0: must be a finite number"),
    "infinity": (scenario("- [2.0,", "- [inf,"), "scenario.yaml", "covariance.0.0: must be a finite number"),
    "covariance of another size": (scenario("  - [1.0, 3.0]\n", ""), "scenario.yaml", "covariance must be 2 x 2"),
    "covariance not symmetric": (scenario("[1.0, 3.0]", "[1.5, 3.0]"), "scenario.yaml", "covariance is not symmetric"),
    "non-positive covariance": (scenario("[1.0, 3.0]", "[1.0, -3.0]"), "scenario.yaml", "is not positive definite"),
    "singular covariance": (
        scenario(IDENTITY, "  covariance:\n  - [1.0, 1.0]\n  - [1.0, 1.0]\n"),
        "scenario.yaml",
        "region.covariance: covariance is not positive definite",
    ),
    "no tau": (scenario("tau: 0.5", "tau: 0"), "scenario.yaml", "region.tau: must be greater than 0"),
    "weight": (scenario("weight: 0.25", "weight: 2"), "scenario.yaml", "region.weight: must be 1 or less"),
    "unknown method": (scenario('name: "defuse"', "name: magic"), "scenario.yaml", "method.name: must be 'defuse'"),
    "seed": (scenario("seed: 0", "seed: lucky"), "scenario.yaml", "provenance.seed: must be a whole number"),
    "versions": (scenario('torch: "2.9"', "torch: [2, 9]"), "scenario.yaml", "provenance.versions.torch: must be text"),
    "evidence cut off": (scenario("[7, 9]", "[7]"), "scenario.yaml", "nearest_distances differ in length"),
    "evidence": (scenario("[0.5, 0.75]", "[0.5, -1]"), "scenario.yaml", "nearest_distances.1: must be 0 or more"),
    "accepted without label": (scenario('"candidate"', "accepted"), "scenario.yaml:5", "accepted but label is empty"),
    "pixels without end": (
        hundred_huge_tiles,
        "scenario.yaml:18",
        "correction would have 104,857,600 pixels; at most 67,108,864 are read",
    ),
    # classes, formats, names
    "unknown class": (
        scenario("label: null", "label: cat"),
        "scenario.yaml:5",
        "label: 'cat' is not one of the classes",
    ),
    "unknown proposal": (scenario('label: "3"', "label: dog"), "scenario.yaml:6", "proposed_label: 'dog' is not one"),
    "unknown prediction": (
        taken_for_an_owl,
        "scenario.yaml:23",
        "predicted.owl: 'owl' is not one of the classes",
    ),
    "unknown evidence": (scenario('["3", "5"]', '["3", "x"]'), "scenario.yaml", "evidence.nearest_labels: 'x' is not"),
    "newer format": (scenario("format: 1", "format: 2"), "scenario.yaml", "has format 2, but this pytest-defuse reads"),
    "no format": (scenario("format: 1", "format: one"), "scenario.yaml:2", "format: must be a whole number"),
    "path out of the store": (scenario('id: "3', 'id: "../3'), "scenario.yaml:3", "id: must match the pattern"),
    "absolute path": (scenario('id: "', 'id: "/etc/'), "scenario.yaml:3", "(it is '/etc/3-as-5-"),
    "long id": (scenario('id: "', 'id: "' + "x" * 99), "scenario.yaml:3", "id: must have at most 48 characters"),
    "folder of another name": (
        lambda f: f.rename(f.with_name("copy")) and None,
        "scenario.yaml:3",
        "but the folder is",
    ),
    # pictures
    "missing picture": (lambda f: (f / "held_out.png").unlink(), "held_out.png", "is missing: restore it from git"),
    "truncated picture": (
        lambda f: replace(f / "held_out.png", (f / "held_out.png").read_bytes()[:100]),
        "held_out.png",
        "is not a readable PNG (",
    ),
    "empty picture": (content("held_out.png", b""), "held_out.png", "is not a readable PNG ("),
    "JPEG": (content("held_out.png", jpeg()), "held_out.png", "is not a readable PNG ("),
    "picture as LFS pointer": (content("held_out.png", LFS), "held_out.png", "is a Git LFS pointer, not the picture"),
    "other pixels": (content("held_out.png", encode_sheet(CORRECTION)), "held_out.png", "holds other pixels than its"),
    "mixed sizes": (
        content("held_out.png", encode_sheet(random_tiles(4, width=9))),
        "held_out.png",
        "is 18 x 16, but 4 tiles of 8 x 8 make 16 x 16",
    ),
    "50,000 x 50,000": (
        content("held_out.png", picture(50_000, 50_000)),
        "held_out.png",
        "claims to be larger than any",
    ),
    "9,000 x 9,000": (content("held_out.png", picture(9_000, 9_000)), "held_out.png", "is 9000 x 9000, but 4 tiles of"),
    "linked picture": (link("held_out.png"), "held_out.png", "is a symbolic link: put the file itself"),
    "picture is a folder": (to_folder, "held_out.png", "is not a file: restore it from git"),
    "picture is a pipe": (to_pipe, "held_out.png", "is not a file: restore it from git"),
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
        "scenario.yaml:14",
        "tile: differs from that of store.yaml",
    ),
    "budget": (
        store("tiles: 256", "tiles: none"),
        "../store.yaml:10",
        "budgets.tiles: must be a whole number",
    ),
    "rho": (store("rho: 0.5", "rho: 50"), "../store.yaml:13", "voting.rho: must be 1 or less"),
    "newer store": (store("format: 1", "format: 7"), "../store.yaml", "has format 7, but this pytest-defuse reads"),
    # votes
    "votes of another": (votes('"anna"', '"bob"'), "votes/anna.yaml:3", "it is 'bob', but the file is 'anna.yaml'"),
    "vote for no class": (votes('"3": ', '"cat": '), "votes/anna.yaml:8", "'cat' is not one of the classes"),
    "vote on no tile": (votes('"3": [0]', '"3": [9]'), "votes/anna.yaml:5", "votes on tile 9, but the sheet has tiles"),
    "two votes on a tile": (votes('"3": [0]', '"3": [0, 1]'), "votes/anna.yaml:7", "tile 1 has two votes: keep one"),
    "votes on other pictures": (
        lambda f: edit(f / "votes/anna.yaml", (f / "votes/anna.yaml").read_text().split('"')[5], "0" * 64),
        "votes/anna.yaml:6",
        "these votes are on other pictures than correction.png",
    ),
    "who votes": (votes('"human"', "robot"), "votes/anna.yaml:4", "kind: must be 'human' or 'model'"),
    "stray vote": (lambda f: (f / "votes/anna.csv").touch(), "votes/anna.csv", "is no file of votes: move it away"),
    # pixels that are there twice
    "duplicates": (same_again, "../8-as-2-{hash}/held_out.png", "4 of its 4 tiles are pixel for pixel in"),
    "held-out tiles seen before": (held_out_as_correction, "held_out.png", "4 of its 4 tiles are pixel for pixel in"),
}
