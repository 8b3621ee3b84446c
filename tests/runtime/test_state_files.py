from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pytest_defuse.runtime.state_files import read_state, write_state

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
KEYS = st.text(max_size=3) | st.integers() | st.booleans()
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=10,
)


@given(value=NESTED)
def test_plain_values_are_read_back_with_their_types(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "plain.state"
    write_state({"value": value}, file)
    assert repr(read_state(file)["value"]) == repr(value)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(2, 3, 4, 5),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(3, 2).T,
        torch.tensor(7),
        torch.empty(0, 3),
        torch.rand(4).bfloat16(),
        torch.tensor([True, False]),
    ],
    ids=["contiguous", "channels last", "transposed", "scalar", "empty", "bfloat16", "bool"],
)
def test_tensors_are_read_back_in_their_memory_layout(tensor: Tensor, tmp_path: Path) -> None:
    write_state([tensor, {"again": tensor}], tmp_path / "a.state")
    for found in (read_state(tmp_path / "a.state")[0], read_state(tmp_path / "a.state")[1]["again"]):
        assert torch.equal(found, tensor)
        assert (found.dtype, found.stride()) == (tensor.dtype, tensor.stride())


def test_a_state_dict_is_read_back_as_a_dict(tmp_path: Path) -> None:
    write_state(OrderedDict(b=torch.ones(1), a=None), tmp_path / "a.state")
    assert list(read_state(tmp_path / "a.state")) == ["b", "a"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"history": [deque([1])]}, "collections.deque"),
        (torch.eye(2).to_sparse(), "torch.Tensor"),
        ({1: Path()}, "Path"),
        (lambda: 0, "function"),
    ],
)
def test_what_is_not_plain_is_refused_and_leaves_the_old_file(value: Any, kind: str, tmp_path: Path) -> None:
    write_state(1, tmp_path / "a.state")
    with pytest.raises(TypeError, match=kind):
        write_state(value, tmp_path / "a.state")
    assert read_state(tmp_path / "a.state") == 1


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_or_foreign_file_counts_as_none(content: bytes, tmp_path: Path) -> None:
    assert read_state(tmp_path / "missing.state") is None
    (tmp_path / "a.state").write_bytes(content)
    assert read_state(tmp_path / "a.state") is None
