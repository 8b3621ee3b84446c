"""Nested values with tensors on disk, as safetensors files, which contain no code."""

import json
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pytest_defuse.runtime.cache import NO_OUTPUTS, Tensors, UnusableError, read_tensors, write_tensors

STRUCTURE = "structure"
"""The tensor that contains the nesting, as JSON in UTF-8; the other tensors are numbered."""


def write_state(value: Any, file: Path, outputs: Tensors = NO_OUTPUTS) -> None:
    """Write dicts, lists and tuples of tensors, numbers, strings, booleans and None: whole or not at all.

    Raises:
        TypeError: the value contains an object of another type; the message is the name of the type.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_packed(value, tensors)).encode()
    tensors[STRUCTURE] = torch.frombuffer(bytearray(structure), dtype=torch.uint8)
    write_tensors(tensors, file, outputs)


def read_state(file: Path, outputs: Tensors = NO_OUTPUTS) -> Any:
    """What :func:`write_state` wrote, with tensors on the CPU; None if the file is missing or cannot be used."""
    # The other errors are of a file that this package wrote for another purpose, or in another version.
    with suppress(FileNotFoundError, UnusableError, AttributeError, LookupError, ValueError, TypeError, RuntimeError):
        tensors = read_tensors(file, outputs)
        return _unpacked(json.loads(bytes(tensors[STRUCTURE].tolist())), tensors)
    return None


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor) and value.layout is torch.strided:
        # Dimensions from the largest stride to the smallest: a file contains contiguous tensors, and sums over a tensor
        # in another memory layout differ in their last bit.
        order = sorted(range(value.ndim), key=value.stride, reverse=True)
        name = str(len(tensors))
        tensors[name] = value.detach().permute(order)
        return {"tensor": name, "order": order}
    if type(value) in (dict, OrderedDict):
        return {"dict": [[_packed(key, tensors), _packed(item, tensors)] for key, item in value.items()]}
    if type(value) is tuple:
        return {"tuple": [_packed(item, tensors) for item in value]}
    if type(value) is list:
        return [_packed(item, tensors) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__}")


def _unpacked(packed: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(packed, list):
        return [_unpacked(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if "tensor" in packed:
        order = packed["order"]
        return tensors[packed["tensor"]].permute([order.index(dim) for dim in range(len(order))])
    if "tuple" in packed:
        return tuple(_unpacked(packed["tuple"], tensors))
    return {_unpacked(key, tensors): _unpacked(item, tensors) for key, item in packed["dict"]}
