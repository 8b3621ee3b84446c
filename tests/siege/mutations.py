"""Damage to files by a seeded generator: to their bytes, and to the values that they hold."""

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ODD_VALUES: list[Callable[[], Any]] = [
    lambda: None,
    lambda: True,
    lambda: -1,
    lambda: 0,
    lambda: 3,
    lambda: 10**18,
    lambda: 10**400,
    lambda: 1e308,
    lambda: 0.5,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: "",
    lambda: "3",
    lambda: "no",
    lambda: "\0",
    lambda: "\x1b[2J\u202e",
    lambda: "../../etc/passwd",
    lambda: "x" * 5000,
    lambda: "9" * 5000,
    lambda: "\U0001f600",
    lambda: [],
    lambda: {},
    lambda: [[]] * 5,
    lambda: [1.5] * 3000,
    lambda: {str(number): number for number in range(3000)},
    lambda: nested(40),
]
TOKENS = [
    b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"{", b"[", b"}", b"]", b":", b",", b'"', b"\\ud800",
    b"&a ", b"*a", b"!!python/object:os.system ", b"<<<<<<< HEAD\n", b"---\n", b"\t", b"#", b"|\n", b"1e999", b"NaN",
    b"9" * 5000, b"[" * 2000, b"- " * 2000, b"version https://git-lfs.github.com/spec/v1\n", b"\r", b"null", b"-",
]  # fmt: skip


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def damaged(data: bytes, random: Random) -> bytes:
    """The bytes with one to four changes."""
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice([0, 1, 1, 2, 8, 100]))
        change = random.randrange(6)
        if change == 0:
            data = data[:start] + bytes(random.randrange(256) for _ in range(end - start)) + data[end:]
        elif change == 1:
            data = data[:start] + random.choice(TOKENS) + data[end:]
        elif change == 2:
            data = data[:start] + data[end:]
        elif change == 3:
            data = data[:end] + data[start:end] * random.choice([1, 2, 50]) + data[end:]
        elif change == 4:
            data = data[:start]
        elif start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << random.randrange(8)]) + data[start + 1 :]
    return data


def changed(value: Any, random: Random) -> Any:
    """A copy of nested lists and dicts with one or two changes at random places."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 2])):
        places = list(_places(value))
        if not places:
            return random.choice(ODD_VALUES)()
        collection, key = random.choice(places)
        change = random.randrange(6)
        if change == 0:
            del collection[key]
        elif change == 1:
            other, other_key = random.choice(places)
            collection[key] = copy.deepcopy(other[other_key])
        elif change == 2 and isinstance(collection, dict):
            collection[random.choice([key, "\ud800", "", "x", "3", "../x"]) + "_"] = copy.deepcopy(collection[key])
        elif change == 2:
            collection.insert(key, copy.deepcopy(collection[key]))
        elif change == 3 and isinstance(collection[key], (int, float)):
            collection[key] = collection[key] * random.choice([-1, 2, 1.5]) + random.choice([-1, 0, 1])
        else:
            collection[key] = random.choice(ODD_VALUES)()
    return value


def _places(value: Any) -> Any:
    """Every (list or dict, key) in nested values; of a long list, the first ones."""
    keys = (
        list(value) if isinstance(value, dict) else list(range(min(len(value), 8))) if isinstance(value, list) else []
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


def changed_image(array: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
    """An image with other pixels, another size or mode."""
    change = random.randrange(5)
    if change == 0:
        return 255 - array
    if change == 1:
        return array[: random.randrange(1, len(array) + 1)]
    if change == 2:
        return np.concatenate([array] * random.randrange(2, 5), axis=random.randrange(2))
    if change == 3:
        return np.stack([array] * 3, axis=2)
    other = array.copy()
    other[random.randrange(len(array)), 0] ^= 1
    return other


def changed_tensors(tensors: dict[str, Tensor], random: Random) -> dict[str, Tensor]:
    """Tensors of which one has another name, shape, dtype or values, or is missing."""
    tensors = dict(tensors)
    name = random.choice(sorted(tensors))
    tensor = tensors.pop(name)
    change = random.randrange(6)
    if change == 1:
        tensors[f"{name}_"] = tensor
    elif change == 2:
        tensors[name] = torch.cat([tensor.flatten(), tensor.flatten()])
    elif change == 3:
        tensors[name] = tensor.to(random.choice([torch.float64, torch.int8, torch.bool, torch.bfloat16]))
    elif change == 4:
        tensors[name] = (
            torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else torch.zeros_like(tensor)
        )
    elif change == 5:
        tensors[name] = torch.zeros(0)
    return tensors
