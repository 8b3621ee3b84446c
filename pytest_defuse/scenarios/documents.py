"""YAML files of a store, read with the line of everything that is wrong.

Reading takes every plain scalar as text and lets the schema decide, so that ``label: 3`` and ``label: no``
typed by hand are the class names "3" and "no". All errors of a file are reported at once.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, ClassVar, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import Composer

from pytest_defuse.runtime.validation import invalid_values
from pytest_defuse.scenarios.machine import MAX_BYTES, MachineRecord, check_format, parse_machine
from pytest_defuse.scenarios.old_formats import OldFileError, upgraded
from pytest_defuse.scenarios.problems import (
    Problem,
    StoreError,
    check_size,
    first_problems,
    plain_bytes,
    raise_if_any,
    store_error,
    unknown_class,
    without_lfs_pointer,
)
from pytest_defuse.scenarios.schema import FORMAT, SPLITS, FileRecord, ScenarioRecord, StoreRecord, VotesRecord

MAX_YAML_BYTES = 2**22
"""Maximum size of a YAML file that is read, 4 MiB: a thousand classes and their names take some 100 KiB."""
MAX_NODES = 100_000
"""Maximum number of keys, values and lists in a file: each takes 10 microseconds and a KiB. The names of the 21,841
classes of ImageNet fit."""
MAX_LEVELS = 32
"""Maximum nesting of lists and keys in a file: the schema needs six, and Python's stack holds hundreds."""

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=FileRecord)
Key = str | int


@dataclass(frozen=True)
class Document(Generic[R]):
    """A file that was read.

    Attributes:
        file: its name in messages.
        format: the format in which it is written; ``record`` is of the present one.
        text: its content without a byte order mark.
        root: the YAML nodes, which know their places in the text.
        machine: what a scenario.yaml of an old format holds that is in machine.json today; else None.
    """

    file: str
    format: int
    text: str
    record: R
    root: yaml.Node
    machine: MachineRecord | None = None
    byte_order_mark: str = ""

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return (self.byte_order_mark + self.text).encode()

    @property
    def sha256(self) -> str:
        """Hash of :attr:`content`, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    def problem(self, keys: Sequence[Key], words: str, *, warning: bool = False) -> Problem:
        """A problem at the line of a key: ``file:line: key: words``."""
        return _problem(self.file, self.root, keys, words, warning=warning)


def read_document(path: Path, kind: type[R]) -> Document[R]:
    """Read and check a YAML file; see :func:`parse_document`."""
    return parse_document(plain_bytes(path, MAX_YAML_BYTES), str(path), kind)


def parse_document(data: bytes, file: str, kind: type[R]) -> Document[R]:
    """The document in ``data``, the content of ``file``."""
    check_size(len(data), MAX_YAML_BYTES, file)
    try:
        content = without_lfs_pointer(data, file).decode()
    except UnicodeDecodeError as error:
        raise store_error(file, f"is not UTF-8 text ({error.reason}): restore it from git") from error
    text = content.removeprefix("\ufeff")
    if conflict := re.search(r"^<{7} .*$", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        raise store_error(file, "holds a merge conflict: keep one of the two versions", line)
    root, plain = _parsed(text, file)
    digits = str(plain.get("format", "")) if isinstance(plain, dict) else ""
    number = int(digits) if re.fullmatch(r"[0-9]{1,9}", digits) else FORMAT
    check_format(number, file)
    problems: list[Problem] = []
    machine = None
    if number < FORMAT:
        try:
            plain = upgraded(plain, number, kind.schema_name)
        except OldFileError as error:
            raise StoreError([_problem(file, root, error.keys, str(error))]) from error
        if kind is ScenarioRecord:
            machine = _checked(MachineRecord, {"format": FORMAT} | plain["machine"], file, root, problems)
            plain["machine"] = machine.sha256 if machine else "0" * 64
    record = _checked(kind, plain, file, root, problems)
    raise_if_any(problems)
    assert record is not None
    document = Document(file, number, text, record, root, machine, content.removesuffix(text))
    if isinstance(record, ScenarioRecord) and machine is not None:
        raise_if_any(_contradictions(document, record, machine))
    return document


def machine_of(document: Document[ScenarioRecord], folder: Path) -> MachineRecord:
    """What machine.json in ``folder`` holds or, in an old format, scenario.yaml; see :func:`parse_machine_of`."""
    path = folder / "machine.json"
    return document.machine or parse_machine_of(document, plain_bytes(path, MAX_BYTES), str(path))


def parse_machine_of(document: Document[ScenarioRecord], data: bytes, file: str) -> MachineRecord:
    """The record in ``data``, the content of the machine.json ``file``."""
    machine = parse_machine(data, file, document.record.machine)
    raise_if_any(_contradictions(document, document.record, machine))
    return machine


def _contradictions(document: Document[Any], record: ScenarioRecord, machine: MachineRecord) -> Iterator[Problem]:
    """Where scenario.yaml and machine.json contradict each other, each at its line of scenario.yaml."""
    for split in SPLITS:
        sheet, tiles = record.sheet(split), machine.tiles(split)
        if tiles.predicted is not None and Counter(tiles.predicted) != Counter(sheet.predicted):
            words = "counts other predictions than those recorded for each tile: restore the folder from git."
            yield document.problem(("sheets", split, "predicted"), words)
        for key in ("labels", "sources"):
            values = getattr(tiles, key)
            if values is not None and len(values) != sheet.images:
                words = f"the sheet has {sheet.images} tiles, but machine.json has {len(values)} {key}."
                yield document.problem(("sheets", split, "images"), words)
        if (tiles.labels is None) != (record.labels is None):
            words = f"per image requires a class for each tile of {split} in machine.json, and vice versa."
            yield document.problem(("labels",), words)


def scenario_problems(
    document: Document[ScenarioRecord], machine: MachineRecord | None, folder: str, shared: StoreRecord
) -> Iterator[Problem]:
    """Where a scenario contradicts its folder's name or store.yaml, each at its line of scenario.yaml."""
    return first_problems(_scenario_problems(document, machine, folder, shared))


def _scenario_problems(
    document: Document[ScenarioRecord], machine: MachineRecord | None, folder: str, shared: StoreRecord
) -> Iterator[Problem]:
    record = document.record
    if record.id != folder:
        words = f"the id is {record.id!r}, but the folder is {folder!r}: give both the same name."
        yield document.problem(("id",), words)
    if record.tile != shared.tile:
        yield document.problem(("tile",), "differs from that of store.yaml: restore both from git.")
    # In an old format the keys of machine.json are in scenario.yaml.
    above = () if document.machine else ("machine",)
    of_machine = [((*above, *keys), name) for keys, name in machine.class_names()] if machine else []
    for keys, name in [*record.class_names(), *of_machine]:
        if name not in shared.classes:
            yield document.problem(keys, unknown_class(name, shared.classes))


def vote_problems(document: Document[VotesRecord], record: ScenarioRecord, classes: Sequence[str]) -> Iterator[Problem]:
    """Where a file of votes contradicts its name, its scenario or the classes, each at its line."""
    return first_problems(_vote_problems(document, record, classes))


def _vote_problems(
    document: Document[VotesRecord], record: ScenarioRecord, classes: Sequence[str]
) -> Iterator[Problem]:
    votes, path = document.record, PurePath(document.file)
    if votes.annotator != path.stem:
        words = f"it is {votes.annotator!r}, but the file is {path.name!r}: give both the same name."
        yield document.problem(("annotator",), words)
    for split in SPLITS:
        cast, sheet = votes.split(split), record.sheet(split)
        if cast is None:
            continue
        if cast.sha256 != sheet.sha256:
            yield document.problem((split, "sha256"), f"these votes are on other pixels than {split}.png.")
        for tile in cast.by_tile:
            if tile >= sheet.images:
                words = f"votes on tile {tile}, but the sheet has tiles 0 to {sheet.images - 1}."
                yield document.problem((split,), words)
        for name in cast.labels:
            if name not in classes:
                yield document.problem((split, "labels", name), unknown_class(name, classes))


def _checked(kind: type[M], data: Any, file: str, root: yaml.Node, problems: list[Problem]) -> M | None:
    """The data as a record, or None; what is wrong is added to ``problems``."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems += first_problems(_problem(file, root, *invalid) for invalid in invalid_values(error))
        return None


def _parsed(text: str, file: str) -> tuple[yaml.Node, Any]:
    """The YAML as nodes, which know their lines, and as plain data."""
    try:
        root = yaml.compose(text, Loader=_TextLoader)
        if root is None:
            raise store_error(file, "the file is empty: restore it from git", 1)
        return root, _plain(root)
    # The loader raises YAML errors, and others for an impossible escape such as "\UFFFFFFFF".
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        # libyaml finds the end of a file that was cut off in the line after the last.
        line = min(mark.line + 1, len(text.splitlines())) if mark else 1
        detail = " ".join(str(getattr(error, "problem", None) or error).split())
        unsupported = isinstance(error, _UnsupportedError)
        words = f": {detail}" if unsupported else f" ({detail}): edit it, or restore it from git"
        raise store_error(file, f"not valid YAML{words}", line) from error


SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser, where PyYAML was built with it


class _PlainComposer(Composer):
    """Refuses aliases, a few of which can stand for more data than fits in memory, deep nesting and too many nodes."""

    depth = count = 0
    peek_event: Callable[[], yaml.Event]  # a parser's

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _UnsupportedError("aliases are not supported: write the value again", event)
        if self.depth == MAX_LEVELS:
            raise _UnsupportedError("it is nested too deeply", event)
        if self.count == MAX_NODES:
            raise _UnsupportedError(f"it holds more than {MAX_NODES:,} values", event)
        self.count += 1
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _TextLoader(_PlainComposer, SafeLoader):  # type: ignore[misc, valid-type] # which loader depends on libyaml
    """The safe loader without guessing: a plain scalar is text, or null when it is empty, ~ or null.

    The nodes are composed in Python, since libyaml's composer crashes where a file is nested very deeply.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in pairs if pair[0] == "tag:yaml.org,2002:null"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        SafeLoader.__init__(self, stream)
        Composer.__init__(self)


def _plain(node: yaml.Node) -> Any:
    """The node as dicts, lists, texts and None; a key given twice is an error."""
    if isinstance(node, yaml.MappingNode):
        result: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _UnsupportedError("a key must be plain text", key)
            if key.value in result:
                raise _UnsupportedError(f"key {key.value!r} is given twice", key)
            result[key.value] = _plain(value)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return None if node.tag == "tag:yaml.org,2002:null" else node.value


class _UnsupportedError(yaml.MarkedYAMLError):
    """YAML that is not supported in a store's files, at the start of a node or event."""

    def __init__(self, words: str, start: Any) -> None:
        super().__init__(problem=words, problem_mark=start.start_mark)


def _problem(file: str, root: yaml.Node, keys: Sequence[Key], words: str, *, warning: bool = False) -> Problem:
    node, line = root, root.start_mark.line
    for key in keys:
        # The line of the key, not of its value: a block starts a line later.
        if isinstance(node, yaml.MappingNode) and (found := [p for p in node.value if p[0].value == str(key)]):
            line, node = found[0][0].start_mark.line, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            line, node = node.value[key].start_mark.line, node.value[key]
        else:
            break
    return Problem(file, f"{'.'.join(map(str, keys)) or 'the file'}: {words}", line + 1, warning)
