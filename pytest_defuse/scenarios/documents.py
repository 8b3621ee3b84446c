"""YAML files of a store, read with the line of everything that is wrong, and written in one canonical form.

Reading takes every plain scalar as text and lets the schema decide, so that ``label: 3`` and ``label: no``
typed by hand are the class names "3" and "no". All errors of a file are reported at once.
"""

import re
import stat
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import ValidationError
from yaml.composer import Composer

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_text
from pytest_defuse.runtime.validation import invalid_value
from pytest_defuse.scenarios.migrations import upgraded
from pytest_defuse.scenarios.schema import FORMAT, FileRecord

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MOST_YAML_BYTES = 4 * 2**20
MOST_LEVELS = 32
"""Levels of lists and keys in a file, at most: the schema needs six, and Python's stack holds hundreds."""

R = TypeVar("R", bound=FileRecord)
Key = str | int


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a store, in one line."""

    file: str
    words: str
    line: int | None = None
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:" if self.line else self.file
        return f"{place} {'warning: ' if self.warning else ''}{self.words}"


class StoreError(DefuseError):
    """Problems of a store that keep it from being used."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Problems, each said once."""
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Document(Generic[R]):
    """A file that was read.

    Attributes:
        file: what messages call it.
        format: the format that it is written in; ``record`` is of the present one.
        text: as it was read.
    """

    file: str
    format: int
    text: str
    record: R
    root: yaml.Node

    def problem(self, keys: Sequence[Key], words: str, *, warning: bool = False) -> Problem:
        """A problem at the line of a key: ``file:line: key: words``."""
        return _problem(self.file, self.root, keys, words, warning=warning)

    @property
    def canonical(self) -> bool:
        """Whether writing the record again would give the same bytes."""
        return self.text == canonical_text(self.record)


def plain_bytes(path: Path, most: int) -> bytes:
    """The bytes of a plain file.

    Raises:
        StoreError: it is missing, too large, a symbolic link, no file, or only a pointer to one.
    """
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            # Whatever it points to, another clone does not have it, or has something else there.
            raise _refused(path, "is a symbolic link: put the file itself in its place")
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, "is not a file: restore it from git")
        if status.st_size > most:
            raise _refused(path, f"has {status.st_size:,} bytes, at most {most:,} are read: restore it from git")
        data = path.read_bytes()
    except FileNotFoundError:
        raise _refused(path, "is missing: restore it from git, or remove the folder") from None
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror}): restore it from git") from error
    return data


def read_document(path: Path, kind: type[R]) -> Document[R]:
    """Read and check a YAML file.

    Raises:
        StoreError: every error of the file, a line each: ``file:line: key: what is wrong``.
    """
    return parse_document(plain_bytes(path, MOST_YAML_BYTES), str(path), kind)


def parse_document(data: bytes, file: str, kind: type[R]) -> Document[R]:
    """The document that ``data``, the content of ``file``, holds.

    Raises:
        StoreError: as :func:`read_document`.
    """
    if data.startswith(LFS_POINTER):
        raise _refused(file, "is a Git LFS pointer, not the file: run 'git lfs pull'")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(file, f"is not UTF-8 text ({error.reason}): restore it from git") from error
    if conflict := re.search(r"^<{7} .*$", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        raise StoreError([Problem(file, "holds a merge conflict: keep one of the two versions.", line)])
    root, plain = _parsed(text, file)
    given = str(plain.get("format", "")) if isinstance(plain, dict) else ""
    number = int(given) if re.fullmatch(r"[0-9]{1,9}", given) else FORMAT
    if number > FORMAT:
        raise StoreError(
            [Problem(file, f"has format {given}, but this pytest-defuse reads formats up to {FORMAT}: upgrade it.")]
        )
    if number < FORMAT:
        plain = upgraded(plain, number, kind.schema_name)
    try:
        record = kind.model_validate(plain)
    except ValidationError as error:
        raise StoreError(_problem(file, root, *invalid_value(detail)) for detail in error.errors()) from error
    return Document(file, number, text, record, root)


def read_record(path: Path, kind: type[R]) -> R:
    """The record of :func:`read_document`."""
    return read_document(path, kind).record


def canonical_text(record: FileRecord) -> str:
    """A record in the one canonical form: keys in the schema's order, texts quoted, numbers short."""
    data = record.model_dump(mode="json")
    body = yaml.dump(data, Dumper=_CanonicalDumper, sort_keys=False, width=110, allow_unicode=True)
    return f"# yaml-language-server: $schema={record.schema_file}\n{body}"


def write_record(path: Path, record: FileRecord) -> None:
    """Write a record to a file, whole or not at all."""
    replace_text(path, canonical_text(record))


def _refused(file: Path | str, words: str) -> StoreError:
    return StoreError([Problem(str(file), f"{words}.")])


def _parsed(text: str, file: str) -> tuple[yaml.Node, Any]:
    """The YAML as nodes, which know their lines, and as plain data."""
    try:
        root = yaml.compose(text, Loader=_TextLoader)
        if root is None:
            raise StoreError([Problem(file, "the file is empty: restore it from git.", 1)])
        return root, _plain(root)
    except _UnusedYAMLError as error:
        raise StoreError([Problem(file, f"not valid YAML: {error}.", error.line)]) from None
    # The loader has errors of its own, and others for an impossible escape such as "\UFFFFFFFF".
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        # libyaml finds the end of a file that was cut off in the line after the last.
        line = min(mark.line + 1, len(text.splitlines())) if mark else 1
        detail = " ".join(str(getattr(error, "problem", None) or error).split())
        words = f"not valid YAML ({detail}): edit it, or restore it from git."
        raise StoreError([Problem(file, words, line)]) from error


class _UnusedYAMLError(Exception):
    """YAML that a store's files do not use, at the line where a node or event starts."""

    def __init__(self, words: str, start: Any) -> None:
        super().__init__(words)
        self.line = start.start_mark.line + 1


_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser, where PyYAML was built with it


class _PlainComposer(Composer):
    """Refuses aliases, a few of which can stand for more data than fits in memory, and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[attr-defined]
        if isinstance(event, yaml.AliasEvent):
            raise _UnusedYAMLError("aliases are not used here: write the value again", event)
        if self.depth == MOST_LEVELS:
            raise _UnusedYAMLError("it is nested too deeply", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _TextLoader(_PlainComposer, _SafeLoader):  # type: ignore[misc, valid-type]
    """The safe loader without guessing: a plain scalar is text, or null when it is empty, ~ or null.

    The nodes are composed in Python, since libyaml's composer crashes where a file is nested very deeply.
    """

    def __init__(self, stream: str) -> None:
        _SafeLoader.__init__(self, stream)
        Composer.__init__(self)


_TextLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] == "tag:yaml.org,2002:null"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _CanonicalDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


def _short(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    # Nine digits are exact for float32, and keep a covariance positive definite.
    mantissa, *exponent = f"{number:.9g}".split("e")
    digits = mantissa if "." in mantissa else f"{mantissa}.0"  # else YAML takes 1 for an integer, 1e-07 for a text
    return dumper.represent_scalar("tag:yaml.org,2002:float", "e".join([digits, *exponent]))


def _rows(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    flat = not any(isinstance(item, (list, dict)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


def _mapping(dumper: yaml.SafeDumper, mapping: dict[str, Any]) -> yaml.MappingNode:
    pairs = []
    for key, value in mapping.items():
        plain = key.isidentifier() and yaml.safe_load(key) == key
        name = dumper.represent_scalar("tag:yaml.org,2002:str", key) if plain else _quoted(dumper, key)
        pairs.append((name, dumper.represent_data(value)))
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=False)


_CanonicalDumper.add_representer(str, _quoted)
_CanonicalDumper.add_representer(float, _short)
_CanonicalDumper.add_representer(list, _rows)
_CanonicalDumper.add_representer(dict, _mapping)


def _plain(node: yaml.Node) -> Any:
    """The node as dicts, lists, texts and None; a key given twice is an error."""
    if isinstance(node, yaml.MappingNode):
        result: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _UnusedYAMLError("a key must be plain text", key)
            if key.value in result:
                raise _UnusedYAMLError(f"key {key.value!r} is given twice", key)
            result[key.value] = _plain(value)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return None if node.tag == "tag:yaml.org,2002:null" else node.value


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
