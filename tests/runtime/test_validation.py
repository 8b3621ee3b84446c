from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pytest_defuse.runtime.validation import first_invalid_value, invalid_value

Whole = Annotated[int, Field(ge=1, le=9)]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=2, max_length=4, pattern="^[a-z]*$")]


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (Whole, 0, "must be >= 1 (it is 0)"),
        (Whole, 10, "must be <= 9 (it is 10)"),
        (Whole, 1.5, "must be a whole number (it is 1.5)"),
        (Whole, "many", "must be a whole number (it is 'many')"),
        (Whole, "9" * 5000, f"must be a whole number (it is '{'9' * 76}...)"),
        (Whole, None, "must be a whole number"),
        (Share, 0, "must be > 0 (it is 0)"),
        (Share, 1, "must be < 1 (it is 1)"),
        (Share, "nan", "must be a finite number (it is 'nan')"),
        (Share, "half", "must be a number (it is 'half')"),
        (Share, [], "must be a number"),
        (bool, "perhaps", "must be true or false (it is 'perhaps')"),
        (bool, [], "must be true or false"),
        (Name, "a", "must have at least 2 characters (it is 'a')"),
        (Name, "abcde", "must have at most 4 characters (it is 'abcde')"),
        (Name, "A/b", "must match the pattern ^[a-z]*$ (it is 'A/b')"),
        (Name, 3, "must be a string (it is 3)"),
        (Literal["L", "RGB"], "CMYK", "must be 'L' or 'RGB' (it is 'CMYK')"),
        (list[int], 3, "must be a list (it is 3)"),
        (tuple[int, ...], {}, "must be a list"),
        (Annotated[tuple[int, ...], Field(min_length=1)], (), "must have 1 or more entries"),
        (dict[str, int], [], "must be a mapping"),
    ],
)
def test_an_invalid_value_is_reported_in_one_sentence(kind: Any, value: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, kind]).validate_python({"key": value})
    assert first_invalid_value(caught.value) == f"key: {sentence}"


def test_choices_are_joined_in_our_words() -> None:
    detail = ErrorDetails(
        type="literal_error", loc=("key",), msg="", input=1, ctx={"expected": "one of: 'a', 'b c', 'd'"}
    )
    assert invalid_value(detail) == (["key"], "must be 'a', 'b c' or 'd' (it is 1)")


def test_a_refusal_without_a_sentence_here_has_pydantics() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(bytes).validate_python(3)
    assert first_invalid_value(caught.value).endswith(f"cannot be used ({caught.value.errors()[0]['msg']}) (it is 3)")
