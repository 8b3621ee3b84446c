"""Messages about values that pydantic refuses, the same with every version of pydantic."""

import re
from collections.abc import Iterator, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_WHOLE, _NUMBER, _LIST, _MAPPING = (
    "must be a whole number",
    "must be a number",
    "must be a list",
    "must be a mapping",
)
_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dataclass_type": _MAPPING,
    "dict_type": _MAPPING,
    "extra_forbidden": "is not a known key; check its spelling",
    "finite_number": "must be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_type": _WHOLE,
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "list_type": _LIST,
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": f"{_MAPPING}, such as status: candidate",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be a string",
    "together": "{words}",  # an error of several values, raised by a validator of ours
    "too_short": "must have {min_length} or more entries",
    "tuple_type": _LIST,
    "value_error": "{error}",  # raised by a validator of ours
}
"""By pydantic's error types, which are part of its interface; its own messages change between versions."""


def invalid_value(detail: ErrorDetails) -> tuple[Sequence[str | int], str]:
    """The keys that lead to a value that pydantic refuses, and what is wrong with it."""
    context, value = dict(detail.get("ctx", {})), detail.get("input")
    if choices := re.findall(r"'[^']*'", context.get("expected", "")):
        context["expected"] = one_of(choices)  # pydantic gives them in a text that may change
    template = _WORDS.get(detail["type"])
    words = template.format_map(context) if template else f"cannot be used ({detail['msg']})"
    shown = f" (it is {shortened(repr(value))})" if isinstance(value, str | int | float) else ""
    return [*detail["loc"], *([context["key"]] if "key" in context else [])], words + shown


def invalid_values(error: ValidationError) -> Iterator[tuple[Sequence[str | int], str]]:
    """What :func:`invalid_value` says about each value that pydantic refuses."""
    return map(invalid_value, error.errors(include_url=False))


def first_invalid_value(error: ValidationError) -> str:
    """The first value that pydantic refuses: ``key.key: what is wrong with it``."""
    keys, words = next(invalid_values(error))
    return f"{'.'.join(map(str, keys))}: {words}"


def one_of(words: Sequence[str]) -> str:
    """Alternatives in a sentence: ``a, b or c``."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def shortened(text: str, length: int = 80) -> str:
    """A text in a sentence: at most ``length`` characters of it."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
