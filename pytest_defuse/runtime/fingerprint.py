"""Keys of files on disk, the same in every process and on every machine; outputs are compared up to rounding."""

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 0.01
"""Largest difference of outputs that counts as rounding, relative to the largest output that is not constant; for a
constant one, relative to itself if that is larger.

Measured on 8 images with ResNet-18, ResNet-50, MobileNetV3 and a small network, against float32 on a CPU: inputs and
weights rounded to TensorFloat-32 (what GPUs compute convolutions in) change outputs by up to 0.001, bfloat16 by up to
0.0099. Swapped colour channels change them by 0.05 to 0.4, negated outputs by 2.
"""


def fingerprint(kind: str, **parts: Any) -> str:
    """sha256, in hex, over a kind and named parts.

    Every value is encoded with its type and length, so different parts never share an encoding.

    Args:
        kind: what the key is for, such as ``generator``.
        parts: str, int, float, bool, None, bytes, tensors and arrays (dtype, shape and values, whatever the device
            and memory layout), dataclasses and pydantic models (class name and fields), functions, and tuples, lists
            and mappings of these. The key depends on a function's source and on what it is bound to: defaults, closure,
            arguments of a partial, attributes. It does not depend on functions that it calls by a global name.

    Raises:
        TypeError: a part has another type. Paths are refused: a key must not depend on where a file is.
    """
    digest = hashlib.sha256()
    for chunk in _encoded({"kind": kind, "parts": parts}):
        digest.update(chunk)
    return digest.hexdigest()


def agree(outputs: Tensor, others: Tensor | None) -> bool:
    """Whether two outputs for the same images, float N x K, are equal up to rounding (see :data:`TOLERANCE`)."""
    if others is None or outputs.shape != others.shape or not torch.equal(outputs.isfinite(), others.isfinite()):
        return False
    a, b = (values.double().nan_to_num(0.0, 0.0, 0.0) for values in (outputs, others))
    largest = torch.maximum(a.abs(), b.abs()).amax(dim=0)
    constant = a.amax(dim=0) - a.amin(dim=0) <= TOLERANCE * largest  # such as a masked logit of -1e4
    scale = largest.masked_fill(constant, 0.0).max()
    return bool(((a - b).abs() <= TOLERANCE * largest.clamp(min=scale)).all())


def plain_repr(value: object) -> str:
    """``repr`` without memory addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))


def _encoded(value: Any, functions: tuple[Any, ...] = ()) -> Iterator[bytes | memoryview]:
    """Encode a value; inside ``functions``, the outermost first, an object of any other type is encoded as its repr."""
    if value is None or isinstance(value, bool | int):
        yield f"{type(value).__name__}:{value};".encode()
    elif isinstance(value, float):
        yield f"float:{float(value).hex()};".encode()
    elif isinstance(value, str | bytes):
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        yield f"{'str' if isinstance(value, str) else 'bytes'}:{len(data)}:".encode()
        yield data
    elif isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc"):
        yield from _array(value)
    elif isinstance(value, tuple | list):
        yield f"list:{len(value)}:".encode()
        for item in value:
            yield from _encoded(item, functions)
    elif isinstance(value, Mapping):
        items = {b"".join(_encoded(key, functions)): item for key, item in value.items()}
        yield f"mapping:{len(items)}:".encode()
        for key in sorted(items):
            yield key
            yield from _encoded(items[key], functions)
    elif (names := _field_names(value)) is not None:
        yield b"object:"
        yield from _encoded((type(value).__qualname__, {name: getattr(value, name) for name in names}), functions)
    elif any(value is function for function in functions):  # a function that is in its own closure
        yield b"recursion;"
    elif callable(value):
        yield b"function:"
        yield from _encoded(_function_parts(value), (*functions, value))
    elif functions:
        yield from _encoded(plain_repr(value))
    else:
        raise TypeError(f"a {type(value).__name__} cannot be part of a fingerprint")


def _function_parts(function: Any) -> list[Any]:
    """The source of a function, or of the class of another callable, and what it is bound to."""
    if isinstance(function, partial):
        return ["partial", function.func, function.args, function.keywords]
    plain = inspect.isroutine(function) or inspect.isclass(function)
    try:
        source = inspect.getsource(function if plain else type(function))
    except (OSError, TypeError):  # built in, or typed at a prompt
        source = plain_repr(function)
    names = ("__defaults__", "__kwdefaults__", "__self__") if plain else ("__dict__",)
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    state = function.state_dict() if isinstance(function, nn.Module) else None
    return [source, [getattr(function, name, None) for name in names], cells, state]


def _array(value: "Tensor | np.ndarray[Any, Any]") -> Iterator[bytes | memoryview]:
    if isinstance(value, Tensor):
        name = str(value.dtype).removeprefix("torch.")
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    else:
        name = value.dtype.name
        data = value.astype(value.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8)
    yield f"array:{name}:{tuple(value.shape)}:".encode()
    yield data.data


def _field_names(value: Any) -> list[str] | None:
    """The fields of a dataclass or pydantic model; None for anything else."""
    if is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in fields(value)]
    names = None if isinstance(value, type) else getattr(type(value), "model_fields", None)
    return None if names is None else list(names)
