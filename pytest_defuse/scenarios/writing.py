"""YAML files of a store, written so that the comments that people wrote stay.

A new file has one canonical form. A decision replaces the text of the values that it changes; all other text stays byte
for byte. A file of an old format is rewritten in canonical form, with its comments at the same keys.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import yaml

from pytest_defuse.scenarios.documents import MAX_YAML_BYTES, Document, R, SafeLoader, parse_document
from pytest_defuse.scenarios.problems import check_size, read_or_report, store_error
from pytest_defuse.scenarios.schema import FileRecord

WIDTH = 110
"""Columns after which a list is continued on the next line, so that a diff needs no sideways scrolling."""

COMMENT = re.compile("#[^\r\n\x85\u2028\u2029]*")
"""A comment, which ends with its line (YAML 1.1, section 4.2.3)."""

UNKNOWN = "cannot hold a text with characters that YAML does not have: replace them"
CHANGED = "cannot be rewritten without changing what it holds: edit it by hand"

Keys = tuple[str, ...]
Edit = tuple[int, int, str]
"""Start and end of the text to replace, and the text that replaces it."""


def canonical_text(record: FileRecord) -> str:
    """A record in canonical form: keys in the schema's order, texts quoted.

    Null values are left out, except ``label``, which a person fills in.
    """
    values = record.model_dump(mode="json", exclude_none=True)
    data = _Block((key, values.get(key)) for key in type(record).model_fields if key in values or key == "label")
    body = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    # By this comment the YAML language server, and so most editors, find a file's JSON Schema.
    return f"# yaml-language-server: $schema={record.schema_file}\n{body}"


def new_document(record: R, file: str) -> Document[R]:
    """A record in canonical form as the content of a new file; see :func:`edited` for errors."""
    return _read_back(canonical_text(record), file, record, UNKNOWN)


def edited(document: Document[R], record: R) -> Document[R]:
    """The document with the values of ``record``; other text stays byte for byte.

    Raises:
        StoreError: the new text would not read back as ``record``, or it is too long to be read.
    """
    old, new = (part.model_dump(mode="json") for part in (document.record, record))
    text = document.text
    for start, end, replacement in sorted(_edits(document.root, old, new, text), reverse=True):
        text = text[:start] + replacement + text[end:]
    return _read_back(document.byte_order_mark + text, document.file, record)


def rewritten(document: Document[R]) -> Document[R]:
    """The document in the present format and canonical form, with its comments; see :func:`edited` for errors."""
    text = _with_comments(canonical_text(document.record), document)
    return _read_back(text, document.file, document.record)


def _read_back(text: str, file: str, record: R, failure: str = CHANGED) -> Document[R]:
    data = text.encode()
    check_size(len(data), MAX_YAML_BYTES, file)
    again = read_or_report(partial(parse_document, data, file, type(record)), [])
    if again is None or again.record != record:
        raise store_error(file, failure)
    return again


def _edits(node: Any, old: Any, new: Any, text: str) -> Iterator[Edit]:
    """The edits that turn a mapping with the values ``old`` into one with the values ``new``."""
    nodes = {key.value: value for key, value in node.value}
    above = node.value[0][1]
    for name, value in new.items():
        before, place = old[name], nodes.get(name)
        if value == before:
            pass
        elif place is None:
            yield _insertion([f"{name}: {_inline(value)}"], node, above, text)
        elif isinstance(place, yaml.MappingNode) and isinstance(value, dict) and before.keys() == value.keys():
            yield from _edits(place, before, value, text)
        elif isinstance(place, yaml.SequenceNode) and place.value and value[: len(before)] == before:
            # The items that are there keep their comments.
            marker = "" if place.flow_style else "- "
            items = [f"{marker}{_inline(item)}" for item in value[len(before) :]]
            yield _insertion(items, place, place.value[-1], text)
        else:
            start, end = place.start_mark.index, _end(place, text)
            # A block may start in its key's column, a value on one line must be further right.
            space = "  " if _is_block(place) else "" if start < end else " "
            yield start, end, f"{space}{_inline(value)}{_comments_within(start, end, text)}"
        above = place or above


def _insertion(entries: Sequence[str], collection: yaml.CollectionNode, above: yaml.Node, text: str) -> Edit:
    """The edit that adds entries to a collection after the node ``above``."""
    place = _end(above, text)
    if collection.flow_style:
        return place, place, "".join(f", {entry}" for entry in entries)
    line_end = text.find("\n", place) if "\n" in text[place:] else len(text)
    return line_end, line_end, "".join(f"\n{' ' * collection.start_mark.column}{entry}" for entry in entries)


def _end(node: yaml.Node, text: str) -> int:
    """Where the text of a node ends; a block's end mark is at the token that follows."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last, text)
    start, end = node.start_mark.index, node.end_mark.index
    return int(start + len(text[start:end].rstrip()))


def _inline(value: Any) -> str:
    """A value as written after its key."""
    text = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, width=math.inf, allow_unicode=True)
    return str(text).strip()[1:-1]


def _comments_within(start: int, end: int, text: str) -> str:
    """The comments in the text of a value, as written after the one that replaces it."""
    line_break, comments = "", ""
    for match in _comments(text):
        if start <= match.start() < end:
            comments += f"  {match[0].rstrip()}"
            line_break = text[match.end() : end - len(text[match.end() : end].lstrip())]
    # What else is on the line, in a mapping on one line, must not become a part of the comment.
    rest = text[end:].lstrip(" \t")[:1]
    return comments if rest in ("#", "\r", "\n", "") else comments + line_break


def _with_comments(text: str, document: Document[Any]) -> str:
    """A canonical text with the comments of a document, each at its key.

    Where that key is not in the text, the comment goes above the next one that is, or to the end.
    """
    lines, above = text.removesuffix("\n").split("\n"), defaultdict[int, list[str]](list)
    places = {path: (key, value) for path, key, value in _keys(yaml.compose(text, yaml.SafeLoader), flow=False)}
    values = {path for path, (_, value) in places.items() if not _is_block(value)}
    old = [path for path, _, _ in _keys(document.root)]
    for comment, trailing, at in _comments_at_keys(document):
        if comment == lines[0]:  # the one that names the JSON Schema
            continue
        own = old[at] if at < len(old) else ()
        # Keys that were put together into one value: the comment is about that value.
        around = [own[:size] for size in range(len(own), 0, -1) if own[:size] in values]
        path = next((path for path in (own, *around, *old[at:]) if path in places), None)
        if path is None:
            above[len(lines)].append(comment)
            continue
        key, value = places[path]
        if trailing and path == own:
            lines[(key if _is_block(value) else value).end_mark.line] += f"  {comment}"
        else:
            above[key.start_mark.line].append(" " * key.start_mark.column + comment)
    commented = [part for number, line in enumerate(lines) for part in (*above[number], line)]
    return "\n".join([*commented, *above[len(lines)], ""])


def _comments_at_keys(document: Document[Any]) -> Iterator[tuple[str, bool, int]]:
    """The comments of a document: text, whether something precedes it on its line, and the key, from 0, it is about."""
    marks = [key.start_mark for _, key, _ in _keys(document.root)]
    lines = [mark.line for mark in marks]
    for match in _comments(document.text):
        trailing = bool(document.text[: match.start()].rstrip(" \t")[-1:].strip())
        following = sum(mark.index < match.start() for mark in marks)
        # A key and what it holds may share a line: the comment is about the first.
        at = lines.index(lines[following - 1]) if trailing and following else following
        yield match[0].rstrip(), trailing, at


def _comments(text: str) -> Iterator[re.Match[str]]:
    """The comments of a YAML text: they are between tokens, or in the first line of a block scalar."""
    place = 0
    for token in yaml.scan(text, Loader=SafeLoader):
        start, end = token.start_mark.index, token.end_mark.index
        if text[start:end].startswith(("|", ">")):
            start += len(text[start:end].splitlines()[0])
        yield from COMMENT.finditer(text, place, start)
        place = end


def _keys(node: yaml.Node | None, path: Keys = (), *, flow: bool = True) -> Iterator[tuple[Keys, yaml.Node, yaml.Node]]:
    """The keys of a mapping and of those in it, with their values, in the order of the text."""
    if isinstance(node, yaml.MappingNode) and (flow or not node.flow_style):
        for key, value in node.value:
            yield (*path, key.value), key, value
            yield from _keys(value, (*path, key.value), flow=flow)


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Block(dict[str, Any]):
    """The mapping of a whole file, which is never written on one line."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


def _sequence(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    flow = dumper.default_flow_style or _all_plain(items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flow)


def _mapping(dumper: yaml.SafeDumper, mapping: dict[str, Any]) -> yaml.MappingNode:
    pairs = []
    for key, value in mapping.items():
        plain = key.isidentifier() and yaml.safe_load(key) == key
        name = dumper.represent_scalar("tag:yaml.org,2002:str", key) if plain else _quoted(dumper, key)
        pairs.append((name, dumper.represent_data(value)))
    flow = dumper.default_flow_style or (not isinstance(mapping, _Block) and _all_plain(mapping.values()))
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=flow)


def _all_plain(values: Iterable[Any]) -> bool:
    return not any(isinstance(value, (list, dict)) for value in values)


_Dumper.add_representer(str, _quoted)
_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(_Block, _mapping)
