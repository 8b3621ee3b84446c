"""scenario.yaml and store.yaml, format 1: what they may hold, and how they are read and written.

Reading takes every plain scalar as text and lets the schema decide, so that ``label: 3`` and ``label: no``
typed by hand are the class names "3" and "no". All errors of a file are reported at once, with lines.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pytest_defuse.errors import DefuseError
from pytest_defuse.files import replace_text
from pytest_defuse.gate.bounds import checked

FORMAT = 1

Status = Literal["candidate", "accepted", "rejected"]
Split = Literal["correction", "held_out"]
Format = Annotated[int, Field(ge=1, le=FORMAT)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
FeatureKey = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
FeatureNumber = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
FeatureName = Annotated[str, Field(min_length=1, max_length=80)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FailureRate(_Record):
    """Of ``drawn`` fresh draws from the region, ``failed`` failed; low and high: Wilson's 95% interval."""

    failed: Count
    drawn: Annotated[int, Field(ge=1)]
    low: Share
    high: Share


class Sheet(_Record):
    """One contact sheet: how many tiles, what the model said of them, and the hash of their pixels.

    ``excluded`` lists tiles, counted from 0 in reading order, that a reviewer does not want counted.
    """

    images: Annotated[int, Field(ge=1)]
    sha256: Sha256
    predicted: dict[str, Count]
    excluded: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _counts_agree(self) -> "Sheet":
        if sum(self.predicted.values()) != self.images:
            raise ValueError(f"predicted counts {sum(self.predicted.values())} tiles, but images is {self.images}")
        return self

    @model_validator(mode="after")
    def _tiles_exist(self) -> "Sheet":
        beyond = [tile for tile in self.excluded if tile >= self.images]
        if beyond:
            raise ValueError(f"excluded names tile {beyond[0]}, but the sheet has tiles 0 to {self.images - 1}")
        if len(set(self.excluded)) == self.images:
            raise ValueError("excluded names every tile: reject the scenario instead")
        return self


class Sheets(_Record):
    """The two splits: pictures to finetune on, and pictures that only the gate sees."""

    correction: Sheet
    held_out: Sheet


class Tile(_Record):
    """Mode (L or RGB) and size, in pixels, of every tile."""

    mode: Literal["L", "RGB"]
    width: Annotated[int, Field(ge=1, le=1024)]
    height: Annotated[int, Field(ge=1, le=1024)]


class Vote(_Record):
    """One annotator's opinion of the scenario; ``none_of_the_above`` counts tiles that show no class."""

    who: str
    kind: Literal["human", "model"]
    label: str | None
    agreement: Share
    none_of_the_above: Count = 0


class LatentRegion(_Record):
    """The Gaussian in latent space that the pictures come from; ``generator`` is the decoder's hash."""

    generator: Sha256
    weight: Share
    tau: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    mean: tuple[Finite, ...]
    covariance: tuple[tuple[Finite, ...], ...]

    @model_validator(mode="after")
    def _square(self) -> "LatentRegion":
        size = len(self.mean)
        if len(self.covariance) != size or any(len(row) != size for row in self.covariance):
            raise ValueError(f"covariance must be {size} x {size}, as mean has {size} numbers")
        return self


class Method(_Record):
    """How the scenario was found; a failure mode of Barlow carries its rule and its group's error rate."""

    name: Literal["defuse", "barlow"]
    rule: str | None = None
    base_error_rate: Share | None = None


class Provenance(_Record):
    """What the scenario was found on; hashes are sha256 of the weights and of the training images."""

    model: Sha256
    data: Sha256
    seed: int
    versions: dict[str, str]


class ScenarioRecord(_Record):
    """All of scenario.yaml; ``bounds`` are what the gate asks of this scenario, whatever a test's marker says."""

    format: Format
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=48)]
    status: Status
    label: str | None
    proposed_label: str
    notes: str = ""
    bounds: dict[str, int | float] = {}
    failure_rate: FailureRate
    tile: Tile
    sheets: Sheets
    votes: tuple[Vote, ...] = ()
    method: Method
    provenance: Provenance
    region: LatentRegion | None

    @field_validator("bounds")
    @classmethod
    def _bounds_are_known(cls, given: dict[str, int | float]) -> dict[str, int | float]:
        try:
            return checked(given, "bounds")
        except DefuseError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _accepted_has_label(self) -> "ScenarioRecord":
        if self.status == "accepted" and self.label is None:
            raise ValueError("status is accepted but label is empty: write the class that the pictures show")
        return self


class StoreRecord(_Record):
    """All of store.yaml: what every scenario of one subject shares.

    ``feature_names`` holds what people call features, by the key of their network and layer, which every report
    of failure modes shows, then by number: numbers mean something else in another network.
    """

    format: Format
    classes: tuple[str, ...]
    tile: Tile
    generator: Sha256 | None
    feature_names: dict[FeatureKey, dict[FeatureNumber, FeatureName]] = {}


R = TypeVar("R", bound=_Record)


def read_record(path: Path, kind: type[R]) -> R:
    """Read and check a YAML file.

    Raises:
        DefuseError: every error of the file, a line each: ``file:line: key: what is wrong``.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_TextLoader)
        data = _plain(node) if node is not None else None
    except FileNotFoundError as error:
        raise DefuseError(f"{path} is missing: restore it from git, or remove the folder.") from error
    except OSError as error:
        raise DefuseError(f"{path} cannot be read ({error.strerror}): restore it from git.") from error
    except UnicodeDecodeError as error:
        raise DefuseError(f"{path} is not UTF-8 text ({error.reason}): restore it from git.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DefuseError(f"{path}:{line}: not valid YAML: {error.problem}.") from error
    except RecursionError as error:
        raise DefuseError(f"{path}: not valid YAML: it is nested too deeply.") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an impossible escape such as "\UFFFFFFFF"
        raise DefuseError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from error
    given = str(data.get("format")) if isinstance(data, dict) else ""
    if re.fullmatch(r"[0-9]{1,9}", given) and int(given) > FORMAT:
        raise DefuseError(
            f"{path} has format {given}, but this pytest-defuse reads formats up to {FORMAT}: upgrade it."
        )
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise DefuseError("\n".join(_problem(path, node, detail) for detail in error.errors())) from error


def write_record(path: Path, record: _Record) -> None:
    """Write a record in the one canonical form: keys in the schema's order, texts quoted, numbers short."""
    data = record.model_dump(mode="json")
    replace_text(path, yaml.dump(data, Dumper=_CanonicalDumper, sort_keys=False, width=110, allow_unicode=True))


class _TextLoader(yaml.SafeLoader):
    """The safe loader without guessing: a plain scalar is text, or null when it is empty, ~ or null.

    Aliases are refused: a few of them can stand for more data than fits in memory.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not used here: write the value again", problem_mark=mark)
        return super().compose_node(parent, index)


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
    mantissa, *exponent = f"{number:.7g}".split("e")
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
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key.start_mark)
            if key.value in result:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            result[key.value] = _plain(value)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return None if node.tag == "tag:yaml.org,2002:null" else node.value


def _problem(path: Path, root: yaml.Node | None, detail: Any) -> str:
    """One schema error as ``file:line: key: message``."""
    node, keys = root, []
    for key in detail["loc"]:
        keys.append(str(key))
        if isinstance(node, yaml.MappingNode):
            found = [value for name, value in node.value if name.value == str(key)]
            node = found[0] if found else node
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
    line = node.start_mark.line + 1 if node is not None else 1
    message = {
        "missing": "is missing",
        "extra_forbidden": "is not a key that is known here; check its spelling",
    }.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    given = detail.get("input")
    value = f" (it is {given!r})" if isinstance(given, (str, int, float)) else ""
    return f"{path}:{line}: {'.'.join(keys) or 'the file'}: {message}{value}"
