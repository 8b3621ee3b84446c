import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch import Tensor

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject import images as images_module
from pytest_defuse.subject.images import (
    LabelledImages,
    content_hash,
    found_in,
    load,
    map_style,
    quantise,
    size_words,
    split_off,
    to_pixels,
)

CLASSES = ["cat", "dog", "eel"]
GREY = torch.arange(20, dtype=torch.uint8).view(1, 4, 5)

pixels = st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


def pil_image(array: Any) -> Image.Image:
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


@given(pixels)
def test_every_accepted_kind_of_image_gives_its_exact_pixels(array: Any) -> None:
    expected = torch.tensor(array)
    kinds: list[Any] = [array, expected, pil_image(array), np.asfortranarray(array)]
    kinds += [expected.to(dtype) / 255 for dtype in (torch.float16, torch.float32, torch.float64)]
    kinds += [array.astype(np.float32) / 255, array[:, ::-1].copy()[:, ::-1]]
    kinds += [array[0], expected[0]] if len(array) == 1 else []
    for kind in kinds:
        given_pixels = to_pixels(kind, "train[0]")
        assert given_pixels.dtype == torch.uint8
        assert torch.equal(given_pixels, expected)


def test_a_read_only_array_is_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    array = GREY.numpy().copy()
    array.flags.writeable = False
    assert torch.equal(to_pixels(array, "train[0]"), GREY)
    assert not recwarn


def test_floats_become_the_nearest_level() -> None:
    levels = torch.tensor([0.0, 0.49, 0.51, 1.0, 254.4, 254.6, 255.0])
    assert quantise(levels / 255).tolist() == [0, 0, 1, 1, 254, 255, 255]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGBA", (5, 4)), r'train\[7\] has mode RGBA: convert it with image.convert\("RGB"\) or \("L"\)'),
        (Image.new("P", (5, 4)), "has mode P"),
        (Image.new("1", (5, 4)), "has mode 1"),
        (Image.new("I;16", (5, 4)), "has mode I;16"),
        (torch.zeros(2, 4, 5), r"has shape \(2, 4, 5\): give C x H x W with one \(grey\) or three \(RGB\) channels"),
        (torch.zeros(4, 5, 3), r"has shape \(4, 5, 3\)"),
        (torch.zeros(20), r"has shape \(20,\)"),
        (torch.zeros(1, 1, 4, 5), r"has shape \(1, 1, 4, 5\)"),
        (torch.zeros(1, 0, 5), r"has shape \(1, 0, 5\)"),
        (GREY.int(), r"has dtype torch.int32: give uint8, or float in \[0, 1\]"),
        (GREY > 3, "has dtype torch.bool"),
        (GREY.float(), r"has values from 0 to 19 outside \[0, 1\]: give plain pixels here .*normalize"),
        (GREY / 255 - 0.5, "has values from -0.5 to -0.425"),
        (torch.full((1, 4, 5), torch.nan), "has values from nan to nan"),
        (torch.full((1, 4, 5), torch.inf), "has values from inf to inf"),
        ("cat.png", "is a str: give a PIL image"),
        (None, "is a NoneType: give a PIL image"),
    ],
)
def test_other_images_are_refused_by_name(image: Any, message: str) -> None:
    with pytest.raises(DefuseError, match=message) as error:
        to_pixels(image, "train[7]")
    assert str(error.value).startswith("train[7] ")


def test_one_nan_among_good_pixels_is_found() -> None:
    image = GREY / 255
    image[0, 2, 3] = torch.nan
    with pytest.raises(DefuseError, match="nan"):
        to_pixels(image, "train[0]")


@pytest.mark.parametrize("label", [2, np.int64(2), np.uint8(2), torch.tensor(2)])
def test_a_data_set_is_loaded_in_order(label: Any) -> None:
    images = load([(GREY, 0), (255 - GREY, label)], "train", CLASSES)
    assert torch.equal(images.pixels, torch.stack([GREY, 255 - GREY]))
    assert images.labels.tolist() == [0, 2]
    assert images.labels.dtype == torch.int64
    assert len(images) == 2


def test_loading_leaves_the_users_images_alone() -> None:
    image = GREY.clone()
    load([(image, 0)], "train", CLASSES).pixels.zero_()
    assert torch.equal(image, GREY)


@pytest.mark.parametrize("label", [3, -1, "cat", "1", None, 1.5, torch.tensor(1.5), [0, 1]])
def test_a_label_that_is_not_a_class_index_is_refused(label: Any) -> None:
    with pytest.raises(DefuseError, match=r"train\[1\] has label .*index into the 3 classes: give 0 to 2, or name"):
        load([(GREY, 0), (GREY, label)], "train", CLASSES)


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DefuseError, match=r"Subject\(validation=...\) is empty: give it at least one"):
        load([], "validation", CLASSES)


@pytest.mark.parametrize(
    ("other", "words"), [(torch.zeros(1, 5, 4), "4 x 5 grey"), (torch.zeros(3, 4, 5), "5 x 4 RGB")]
)
def test_mixed_sizes_and_modes_are_refused(other: Tensor, words: str) -> None:
    with pytest.raises(DefuseError, match=rf"test\[1\] is {words} but test\[0\] is 5 x 4 grey: resize"):
        load([(GREY, 0), (other, 0)], "test", CLASSES)


@pytest.mark.parametrize("item", [GREY, (GREY,), (GREY, 1, 2), None])
def test_items_that_are_not_pairs_are_refused(item: Any) -> None:
    with pytest.raises(DefuseError, match=r"train\[1\] is not an \(image, class index\) pair"):
        load([(GREY, 0), item], "train", CLASSES)


def test_the_hash_depends_on_pixels_labels_and_shape() -> None:
    images = load([(GREY, 0), (GREY, 1)], "train", CLASSES)
    others = [
        load([(GREY, 0), (GREY, 2)], "train", CLASSES),
        load([(GREY, 0), (255 - GREY, 1)], "train", CLASSES),
        load([(GREY.view(1, 5, 4), 0), (GREY.view(1, 5, 4), 1)], "train", CLASSES),
        images[:1],
    ]
    assert images.hash == load([(GREY, 0), (GREY, 1)], "train", CLASSES).hash
    assert len({images.hash, *(other.hash for other in others)}) == 5


def test_the_content_hash_keeps_parts_apart() -> None:
    hashes = [
        content_hash("ab", "c"),
        content_hash("a", "bc"),
        content_hash(torch.zeros(2)),
        content_hash(torch.zeros(2, dtype=torch.int32)),
        content_hash(torch.zeros(1), torch.zeros(1)),
        content_hash(torch.tensor(0.0)),
    ]
    assert len(set(hashes)) == len(hashes)


def test_the_content_hash_reads_values_not_memory() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    assert content_hash(matrix.T) == content_hash(matrix.T.contiguous())


def test_sizes_are_named_width_first() -> None:
    assert size_words((7, 3, 4, 5)) == "5 x 4 RGB"


def test_large_data_sets_are_the_same_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = [(torch.rand(1, 4, 5), number % 3) for number in range(50)]
    expected = load(dataset, "train", CLASSES)
    order = torch.randperm(50)
    chosen = expected[order]
    monkeypatch.setattr(images_module, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(images_module, "COPY_BYTES", 7 * 20)
    loaded = load(dataset, "train", CLASSES)
    assert loaded.hash == expected.hash
    assert loaded[order].hash == chosen.hash
    assert loaded[order < 9].hash == expected[order < 9].hash


LARGE = """
import resource, torch
from pytest_defuse.subject.images import load

class Grey:
    def __len__(self):
        return 400
    def __getitem__(self, index):
        return torch.full((1, 1024, 1024), index % 256, dtype=torch.uint8), index % 2

def limited(megabytes):
    used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + megabytes * 2**20, -1))

load([(torch.zeros(1, 2, 2), 0)], "train", ["a", "b"]).hash
limited(200)
images = load(Grey(), "train", ["a", "b"])
print(images.hash[:4], images[torch.arange(399, -1, -1)].pixels[:3, 0, 0, 0].tolist())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit on memory is set as on Linux")
def test_memory_does_not_grow_with_the_data_set() -> None:
    """400 MB of pixels, read and reordered, in a process that may take 200 MB more than it has."""
    run = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split(maxsplit=1)[1] == "[143, 142, 141]\n"


@pytest.mark.parametrize("kind", ["batches", "pairs", "loader", "iterable"])
def test_an_iterable_is_read_once_and_kept(kind: str) -> None:
    pairs = [(GREY + number, number % 3) for number in range(7)]

    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(pairs)

    sources: dict[str, Any] = {
        "batches": (batch for batch in torch.utils.data.DataLoader(pairs, batch_size=3)),
        "pairs": (pair for pair in pairs),
        "loader": torch.utils.data.DataLoader(pairs, batch_size=3),
        "iterable": Stream(),
    }
    dataset = map_style(sources[kind])
    for _ in range(2):
        images = load(dataset, "train", CLASSES)
        assert torch.equal(images.pixels, torch.stack([image for image, _ in pairs]))
        assert images.labels.tolist() == [label for _, label in pairs]


def test_a_map_style_data_set_stays_as_it_is() -> None:
    pairs = [(GREY, 0)]
    assert map_style(pairs) is pairs


@given(st.lists(st.integers(0, 4), min_size=2, max_size=300))
def test_a_tenth_of_each_class_is_split_off_and_nothing_is_lost(labels: list[int]) -> None:
    pixels = torch.arange(len(labels)).view(-1, 1, 1, 1).to(torch.uint8)
    images = LabelledImages(pixels, torch.tensor(labels))
    train, tenth = split_off(images)
    expected = [labels.count(label) // 10 for label in range(5)]
    assert tenth.labels.bincount(minlength=5).tolist() == expected or (not any(expected) and len(tenth) == 1)
    both = sorted([*train.pixels.flatten().tolist(), *tenth.pixels.flatten().tolist()])
    assert both == sorted(pixels.flatten().tolist())
    assert torch.equal(split_off(images)[1].pixels, tenth.pixels)


def test_images_are_found_by_their_pixels() -> None:
    pixels = torch.arange(4).view(4, 1, 1, 1).expand(4, 3, 2, 2).to(torch.uint8)
    assert found_in(pixels, pixels[[3, 1]].clone()).tolist() == [False, True, False, True]
    assert found_in(pixels, []).tolist() == [False] * 4
    assert found_in(pixels[:0], pixels).tolist() == []
