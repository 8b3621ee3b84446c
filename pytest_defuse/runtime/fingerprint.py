"""Keys of what is kept on disk, equal in every process and on every machine; and outputs, equal within rounding."""

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
"""Largest difference of outputs that counts as rounding, relative to the largest output.

Measured on 8 images with ResNet-18, ResNet-50, MobileNetV3 and a small network, against float32 on a CPU: inputs and
weights rounded to TensorFloat-32 (what GPUs compute convolutions in) change outputs by up to 0.001, bfloat16 by up to
0.0099. Swapped colour channels change them by 0.05 to 0.4, another sign by 2.
"""


def fingerprint(kind: str, **parts: Any) -> str:
    """sha256, in hex, over a kind and named parts.

    Every value is encoded with its type and length, so different parts never share an encoding.

    Args:
        kind: what the key is for, such as ``generator``.
        parts: str, int, float, bool, None, bytes, tensors and arrays (dtype, shape and values, whatever the device
            and memory layout), dataclasses and pydantic models (class name and fields), functions
            (:func:`described`), and tuples, lists and mappings of these.

    Raises:
        TypeError: a part of another type. Paths are refused: a key must not depend on where a file is.
    """
    digest = hashlib.sha256()
    for chunk in _encoded({"kind": kind, "parts": parts}):
        digest.update(chunk)
    return digest.hexdigest()


def described(function: Any) -> str:
    """A function as text: its source, defaults, closure and bound arguments; of other callables, class and attributes.

    Equal in all processes; a function that was changed has another text.
    """
    if isinstance(function, partial):
        return f"partial({described(function.func)}, {plain_repr((function.args, function.keywords))})"
    plain = inspect.isroutine(function) or inspect.isclass(function)
    try:
        source = inspect.getsource(function if plain else type(function))
    except (OSError, TypeError):  # built in, or typed at a prompt
        source = plain_repr(function)
    names = ("__defaults__", "__kwdefaults__", "__self__") if plain else ("__dict__",)
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    return source + plain_repr([*(getattr(function, name, None) for name in names), *cells])


def agree(outputs: Tensor, others: Tensor | None) -> bool:
    """Whether two outputs for the same images, float N x K, are equal but for rounding (see :data:`TOLERANCE`)."""
    if others is None or outputs.shape != others.shape or not torch.equal(outputs.isfinite(), others.isfinite()):
        return False
    a, b = (values[outputs.isfinite()].double() for values in (outputs, others))
    return not len(a) or bool((a - b).abs().max() <= TOLERANCE * torch.maximum(a.abs().max(), b.abs().max()))


def plain_repr(value: object) -> str:
    """``repr`` without memory addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))


def _encoded(value: Any) -> Iterator[bytes | memoryview]:
    if value is None or isinstance(value, bool | int):
        yield f"{type(value).__name__}:{value};".encode()
    elif isinstance(value, float):
        yield f"float:{float(value).hex()};".encode()
    elif isinstance(value, str | bytes):
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        yield f"{'str' if isinstance(value, str) else 'bytes'}:{len(data)}:".encode()
        yield data
    elif isinstance(value, Tensor | np.ndarray):
        yield from _array(value)
    elif isinstance(value, tuple | list):
        yield f"list:{len(value)}:".encode()
        for item in value:
            yield from _encoded(item)
    elif isinstance(value, Mapping):
        items = {b"".join(_encoded(key)): item for key, item in value.items()}
        yield f"mapping:{len(items)}:".encode()
        for key in sorted(items):
            yield key
            yield from _encoded(items[key])
    elif (names := _field_names(value)) is not None:
        yield b"object:"
        yield from _encoded((type(value).__qualname__, {name: getattr(value, name) for name in names}))
    elif callable(value):
        yield b"function:"
        yield from _encoded((described(value), value.state_dict() if isinstance(value, nn.Module) else None))
    else:
        raise TypeError(f"a {type(value).__name__} is no part of a fingerprint")


def _array(value: "Tensor | np.ndarray[Any, Any]") -> Iterator[bytes | memoryview]:
    if isinstance(value, Tensor):
        name = str(value.dtype).removeprefix("torch.")
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif value.dtype.kind in "biufc":
        name = value.dtype.name
        data = value.astype(value.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8)
    else:
        raise TypeError(f"an array of {value.dtype} is no part of a fingerprint")
    yield f"array:{name}:{tuple(value.shape)}:".encode()
    yield data.data


def _field_names(value: Any) -> list[str] | None:
    """The fields of a dataclass or pydantic model; None for anything else."""
    if is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in fields(value)]
    names = None if isinstance(value, type) else getattr(type(value), "model_fields", None)
    return None if names is None else list(names)
