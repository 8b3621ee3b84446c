"""Settings: values that are checked when they are constructed, and documented where they are declared."""

import difflib
import reprlib
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationInfo, model_validator
from pydantic import ValidationError as PydanticError

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.validation import one_of

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
"""By pydantic's names of the constraints."""


def setting(default: Any, description: str, origin: str = "our choice", **constraints: Any) -> Any:
    """Declare one setting of a :class:`Settings` class.

    Args:
        description: what the setting does.
        origin: where its default comes from: a paper's section, a library, or a named measurement.
        constraints: arguments of :func:`pydantic.Field`, such as ``ge=1``.
    """
    return Field(default, description=description, json_schema_extra={"origin": origin}, **constraints)


class Settings(BaseModel):
    """Base class of all settings: immutable, hashable, and strict about names, types and ranges.

    A bool is not a number; an int is accepted as a float, and a list as a tuple.

    Attributes:
        marker: the pytest marker that takes these settings, if there is one.
        presets: by setting and value, the defaults that this value replaces.
        renamed: old names and the names that replace them; old ones are accepted with a DeprecationWarning.
        removed: former settings and why they have no effect; ignored with a DeprecationWarning.

    Raises:
        DefuseError: an unknown name, a value of another type, or a value out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    marker: ClassVar[str] = ""
    presets: ClassVar[Mapping[tuple[str, str], Mapping[str, Any]]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}
    removed: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "") -> Self:
        """Settings by name.

        Args:
            source: where the values were written, for error messages; default: the marker.

        Raises:
            DefuseError: an unknown name, a value of another type, or a value out of range.
        """
        return cls.model_validate(dict(values), context={"source": source or cls.marker or cls.__name__})

    def replace(self, **changes: Any) -> Self:
        """These settings with some changed: ``S(a=1).replace(b=2)`` equals ``S(a=1, b=2)``.

        Raises:
            DefuseError: an unknown name, a value of another type, or a value out of range.
        """
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    @classmethod
    def allowed(cls, name: str) -> str:
        """What a setting accepts, in words: ``a whole number from 1 to 3``."""
        field = cls.model_fields[name]
        return _words(field.annotation, field.metadata)

    @classmethod
    def origin(cls, name: str) -> str:
        """Where the default of a setting comes from."""
        extra = cls.model_fields[name].json_schema_extra
        assert isinstance(extra, dict), "declared by setting()"
        return str(extra["origin"])

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(values, dict):
            return handler(values)
        source = (info.context or {}).get("source", cls.__name__)
        for name in values.keys() & cls.removed:
            warnings.warn(f"{source}: {name} has no effect: {cls.removed[name]}.", DeprecationWarning, stacklevel=1)
        values = {
            cls._current(name, values, source): value for name, value in values.items() if name not in cls.removed
        }
        for (name, choice), defaults in cls.presets.items():
            if values.get(name) == choice:
                values = {**defaults, **values}
        try:
            return handler(values)
        except PydanticError as errors:
            error = errors.errors()[0]
        name = str(error["loc"][0])
        wrong = f"{name}={reprlib.repr(values[name])}"
        where = f"{source}({wrong})" if source.isidentifier() else f"{source}: {wrong}"
        # A validator's ValueError says what to give.
        give = error["ctx"]["error"] if error["type"] == "value_error" else cls.allowed(name)
        raise DefuseError(f"{where}: give {give}.")

    @classmethod
    def _current(cls, name: str, values: Mapping[str, Any], source: str) -> str:
        """Today's name of a setting."""
        if name in cls.model_fields:
            return name
        if new := cls.renamed.get(name):
            if new in values:
                raise DefuseError(f"{source} has both {name} and {new}: {name} is the old name of {new}, give one.")
            warnings.warn(f"{source}: {name} is now called {new}.", DeprecationWarning, stacklevel=1)
            return new
        closest = difflib.get_close_matches(name, cls.model_fields, n=1)
        hint = f" (did you mean {closest[0]!r}?)" if closest else ""
        raise DefuseError(f"{source} has no setting {name!r}{hint}: it has {', '.join(cls.model_fields)}.")


def _words(annotation: Any, metadata: Sequence[Any] = (), plural: bool = False) -> str:
    """What a type with constraints accepts; ``plural`` without an article, for the items of a list."""
    return one_of(_alternatives(annotation, metadata, plural))


def _alternatives(annotation: Any, metadata: Sequence[Any], plural: bool) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _alternatives(arguments[0], [*arguments[1:], *metadata], plural)
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in arguments if kind is not type(None)]
        return [words for kind in kinds for words in _alternatives(kind, metadata, plural)]
    if origin is Literal:
        return list(map(repr, arguments))
    if origin is tuple:
        count = "one or more " if any(getattr(item, "min_length", 0) for item in metadata) else ""
        return [f"a list of {count}{_words(arguments[0], plural=True)}"]
    if origin is Callable:
        return ["a function"]
    if annotation is bool:
        return ["True", "False"]
    noun = {int: "whole number", float: "number", str: "string"}.get(annotation, getattr(annotation, "__name__", ""))
    return [(f"{noun}s" if plural else f"a {noun}") + _range(metadata)]


def _range(metadata: Sequence[Any]) -> str:
    """The range that constraints leave, after a noun."""
    items = [part for item in metadata for part in getattr(item, "metadata", [item])]
    limits = {name: getattr(item, name) for item in items for name in SIGNS if hasattr(item, name)}
    if limits.keys() == {"ge", "le"}:
        return f" from {limits['ge']} to {limits['le']}"
    return " and".join(f" {SIGNS[name]} {limit}" for name, limit in limits.items())
