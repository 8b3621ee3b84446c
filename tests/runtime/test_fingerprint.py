import math
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.nn import functional as F

from pytest_defuse.runtime.fingerprint import fingerprint


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    shapes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class OtherSettings:
    rate: float = 0.1
    shapes: tuple[int, ...] = (1, 2)


class Model(BaseModel):
    model_config = ConfigDict(frozen=True)
    rate: float = 0.1


class Times:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, x: float) -> Any:
        return self.factor * x


def of(value: Any) -> str:
    return fingerprint("test", value=value)


def times(factor: Any) -> Any:
    return lambda x: factor * x


DIFFERENT: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 0.0, -0.0, 1.0, math.nan, math.inf),
    *("", "0", "1", "None", "True", "ab", b"", b"ab", b"0"),
    *((), ((),), (0,), (0, 1), ((0,), 1), (0, (1,)), ("ab", "c"), ("a", "bc"), ("abc",), (b"ab", "c")),
    *({}, {"a": 1}, {"a": "1"}, {1: "a"}, {"a": 1, "b": 2}, {"a": {"b": 2}}, ("a", 1)),
    *(
        torch.zeros(2),
        torch.zeros(1, 2),
        torch.zeros(3),
        torch.zeros(2, dtype=torch.int32),
        torch.zeros(()),
        torch.ones(2),
    ),
    *(torch.zeros(2, dtype=torch.bfloat16), torch.zeros(0), np.zeros(2), np.zeros(2, bool)),
    *(Settings(), Settings(rate=0.2), OtherSettings(), Model(), Model(rate=0.2), {"rate": 0.1, "shapes": (1, 2)}),
    *(times(2), times(3), lambda x: 2 * x, Times(2), Times(3), partial(times, 2), partial(times, 3), times, math.sqrt),
    *(partial(F.cross_entropy, label_smoothing=0.1), partial(F.cross_entropy, label_smoothing=0.2), F.cross_entropy),
    *(nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), nn.Linear(2, 2), nn.Linear(2, 2)),
]


def test_different_parts_have_different_fingerprints() -> None:
    for (i, a), (j, b) in combinations(enumerate(map(of, DIFFERENT)), 2):
        assert a != b, (DIFFERENT[i], DIFFERENT[j])


def test_kind_and_names_of_parts_count() -> None:
    keys = [
        fingerprint("a"),
        fingerprint("b"),
        fingerprint("a", x=1),
        fingerprint("a", y=1),
        fingerprint("a", x=1, y=2),
        fingerprint("a", x=2, y=1),
        fingerprint("a", x={"y": 1}),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 and int(key, 16) >= 0 for key in keys)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def typed(value: Any) -> Any:
    """The value in a form whose equality tells 1 from True and from 1.0, and 0.0 from -0.0."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, tuple) else (type(value), repr(value))


@given(st.tuples(values, values) | values.map(lambda value: (value, value)))
def test_fingerprints_are_equal_where_values_are(pair: tuple[Any, Any]) -> None:
    a, b = pair
    assert (of(a) == of(b)) == (typed(a) == typed(b))


def test_values_count_not_memory() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    assert of(matrix.T) == of(matrix.T.contiguous()) == of(matrix.numpy().T) == of(matrix.T.clone().requires_grad_())
    assert of(matrix) != of(matrix.T)
    assert of(np.arange(3, dtype=">f4")) == of(np.arange(3, dtype="<f4"))
    assert of({"a": 1, "b": 2}) == of({"b": 2, "a": 1})
    assert of((1, 2)) == of([1, 2])


def test_functions_of_the_same_source_and_state_are_the_same() -> None:
    assert of(times(2)) == of(times(2))
    assert of(Times(2)) == of(Times(2))
    assert of(partial(times, 2)) == of(partial(times, 2))


@pytest.mark.parametrize(
    "value",
    [Path("a"), object(), {1, 2}, 1j, np.array(["a"]), np.array([object()])],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_encoding_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a fingerprint"):
        of((1, {"a": value}))


def scaled(function: Any) -> Any:
    return lambda x: 2 * function(x)


def longer(factor: Any) -> Any:
    return lambda x: times(factor)(factor * x)


def recursive() -> Any:
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    return factorial


LONG = torch.zeros(2000)  # its repr leaves out the values in the middle


@pytest.mark.parametrize(
    ("function", "other"),
    [
        (times(LONG), times(LONG.index_fill(0, torch.tensor(1000), 1.0))),
        (Times(LONG), Times(LONG + 1e-7)),
        (partial(times, LONG), partial(times, LONG + 1e-7)),
        (scaled(times(2)), scaled(longer(2))),
        (scaled(times(2)), scaled(times(3))),
        (Times(2).__call__, Times(3).__call__),
        (Times(times(2)), Times(longer(2))),
    ],
    ids=[
        "closure",
        "attribute",
        "partial",
        "function in a closure",
        "closure in a closure",
        "self",
        "attribute's code",
    ],
)
def test_what_a_function_is_bound_to_counts(function: Any, other: Any) -> None:
    assert of(function) != of(other)
    assert of(function) == of(function)


def test_a_function_may_be_in_its_own_closure() -> None:
    assert of(recursive()) == of(recursive())


def test_objects_without_an_encoding_are_allowed_in_a_function() -> None:
    assert of(times({1, 2})) == of(times({1, 2})) != of(times({1, 3}))
    assert of(Times(Path("a"))) != of(Times(Path("b")))


PROGRAM = """
from functools import partial
import torch
from tests.runtime.test_fingerprint import Model, Settings, Times, of, times
print(of((1, "a", torch.arange(3), Settings(), Model(), times(2), Times(2), partial(times, 2), print)))
"""


@pytest.mark.slow
def test_another_process_has_the_same_fingerprint() -> None:
    line = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert line.strip() == of(
        (1, "a", torch.arange(3), Settings(), Model(), times(2), Times(2), partial(times, 2), print)
    )
