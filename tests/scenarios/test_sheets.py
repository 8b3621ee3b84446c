import io
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.schema import SheetRecord, TileFormat
from pytest_defuse.scenarios.sheets import (
    Pixels,
    encode_sheet,
    pixel_hash,
    read_sheet,
    sheet_size,
    tile_corner,
    tile_format,
)
from tests.scenarios.planting import random_tiles

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "held_out.png"


def read(path: Path, pixels: Pixels) -> Pixels:
    """Read the sheet of tiles that are recorded to be ``pixels``."""
    return read_sheet(path, recorded(pixels), tile_format(pixels))


def recorded(pixels: Pixels) -> SheetRecord:
    return SheetRecord(images=len(pixels), sha256=pixel_hash(pixels), predicted={"3": len(pixels)})


def refusal(path: Path, pixels: Pixels) -> str:
    with pytest.raises(DefuseError) as caught:
        read(path, pixels)
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    return message.removeprefix(f"{path} ")


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, with checksums that are right."""
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)


@same_folder
@given(
    count=st.integers(1, 256),
    channels=st.sampled_from([1, 3]),
    width=st.integers(1, 12),
    height=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_tiles_come_back_exactly(path: Path, count: int, channels: int, width: int, height: int, seed: int) -> None:
    pixels = random_tiles(count, channels, width, height, seed)
    path.write_bytes(encode_sheet(pixels))
    again = read(path, pixels)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_as_large_as_photographs_come_back_exactly(path: Path, channels: int) -> None:
    pixels = random_tiles(6, channels, 224, 224)
    path.write_bytes(encode_sheet(pixels))
    np.testing.assert_array_equal(read(path, pixels), pixels)


def test_a_sheet_shows_the_tiles_in_reading_order_and_black_where_none_is() -> None:
    shades = np.array([10, 20, 30, 40, 50], dtype=np.uint8).reshape(5, 1, 1, 1)
    image = Image.open(io.BytesIO(encode_sheet(shades.repeat(2, axis=2))))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.array(image), [[10, 20, 30], [10, 20, 30], [40, 50, 0], [40, 50, 0]])


@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_with_gaps_come_back_exactly(path: Path, count: int, channels: int) -> None:
    """A gap lies between neighbours alone, whatever its colour."""
    pixels, gap = random_tiles(count, channels, 4, 3), 2
    tile = tile_format(pixels)
    width, height = sheet_size(count, tile, gap)
    sheet = np.full((height, width, channels), 77, dtype=np.uint8)
    for number, pixel in enumerate(pixels):
        left, top = tile_corner(number, count, tile, gap)
        sheet[top : top + 3, left : left + 4] = pixel.transpose(1, 2, 0)
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(path)
    np.testing.assert_array_equal(read_sheet(path, recorded(pixels), tile, gap), pixels)
    if count > 1:
        assert refusal(path, pixels).startswith(f"is {width} x {height}, but {count} tiles of 4 x 3 make ")


def test_equal_tiles_make_equal_files() -> None:
    assert encode_sheet(random_tiles(9, 3)) == encode_sheet(random_tiles(9, 3))


def test_the_hash_tells_tiles_of_equal_bytes_apart() -> None:
    data = np.arange(36, dtype=np.uint8)
    shapes = [(1, 3, 3, 4), (1, 3, 4, 3), (3, 1, 3, 4), (3, 1, 4, 3), (1, 1, 6, 6), (9, 1, 2, 2)]
    assert len({pixel_hash(data.reshape(shape)) for shape in shapes}) == len(shapes)


def test_the_hash_does_not_depend_on_the_memory_layout() -> None:
    pixels = random_tiles(4, 3)
    assert pixel_hash(pixels[:, :, ::-1][:, :, ::-1]) == pixel_hash(np.asfortranarray(pixels)) == pixel_hash(pixels)


def palette(image: Image.Image, **options: int) -> bytes:
    """The image with 256 colours or fewer as a palette PNG."""
    rgb = np.array(image.convert("RGB"))
    colours, index = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    indexed = Image.fromarray(index.reshape(rgb.shape[:2]).astype(np.uint8)).convert("P")
    indexed.putpalette(colours.astype(np.uint8).tobytes())
    return saved(indexed, **options)


def saved(image: Image.Image, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "RGB"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda image: saved(image, optimize=True),
        lambda image: saved(image, compress_level=0),
        lambda image: saved(image.convert("RGB")),
        lambda image: saved(image.convert("RGBA")),
        lambda image: palette(image),
        lambda image: palette(image, bits=4),
    ],
    ids=["optimised", "stored", "RGB", "RGBA", "palette", "palette of 4 bits"],
)
def test_tiles_survive_a_png_optimiser(path: Path, channels: int, encode: Callable[[Image.Image], bytes]) -> None:
    values = np.array([0, 1, 127, 200, 254, 255], dtype=np.uint8)
    chosen = np.random.default_rng(0).integers(6, size=(7, 1, 5, 5))
    pixels = np.concatenate([values[(chosen + shift) % 6] for shift in range(channels)], axis=1)
    path.write_bytes(encode(Image.open(io.BytesIO(encode_sheet(pixels)))))
    np.testing.assert_array_equal(read(path, pixels), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_tiles_survive_an_optimiser_that_drops_colour(path: Path, mode: str) -> None:
    grey = random_tiles(5) if mode != "1" else random_tiles(5) // 128 * 255
    pixels = grey.repeat(3, axis=1)
    path.write_bytes(saved(Image.open(io.BytesIO(encode_sheet(pixels))).convert(mode)))
    np.testing.assert_array_equal(read(path, pixels), pixels)


def test_other_pixels_than_recorded_are_refused(path: Path) -> None:
    pixels = random_tiles()
    other = pixels.copy()
    other[2, 0, 3, 4] ^= 1
    path.write_bytes(encode_sheet(other))
    assert refusal(path, pixels) == (
        "holds other pixels than its scenario.yaml records: restore both from the same commit."
    )


def test_tiles_in_another_order_are_refused(path: Path) -> None:
    pixels = random_tiles()
    path.write_bytes(encode_sheet(pixels[::-1]))
    assert "holds other pixels" in refusal(path, pixels)


@pytest.mark.parametrize("other", [random_tiles(5), random_tiles(4, width=9), random_tiles(4, height=16)])
def test_a_sheet_of_another_size_is_refused_with_both_sizes(path: Path, other: Pixels) -> None:
    path.write_bytes(encode_sheet(other))
    width, height = Image.open(path).size
    assert refusal(path, random_tiles()) == (
        f"is {width} x {height}, but 4 tiles of 8 x 8 make 16 x 16: restore it from git."
    )


def test_a_truncated_sheet_is_refused(path: Path) -> None:
    pixels = random_tiles()
    whole = encode_sheet(pixels)
    for length in (0, 4, 20, 40, len(whole) // 2, len(whole) * 3 // 4):
        path.write_bytes(whole[:length])
        assert refusal(path, pixels).startswith("is not a readable PNG")


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "TIFF"])
def test_another_kind_of_picture_is_refused(path: Path, kind: str) -> None:
    pixels = random_tiles()
    Image.open(io.BytesIO(encode_sheet(pixels))).save(path, kind)
    assert refusal(path, pixels).startswith("is not a readable PNG")


def test_a_text_is_refused(path: Path) -> None:
    path.write_text("no image")
    assert refusal(path, random_tiles()).startswith("is not a readable PNG")


def test_a_missing_sheet_and_a_folder_are_refused(path: Path) -> None:
    assert refusal(path, random_tiles()) == "is missing: restore it from git, or remove the folder."
    path.mkdir()
    assert refusal(path, random_tiles()) == "is not a file: restore it from git."


def test_a_link_and_a_pipe_are_refused_and_not_followed(path: Path, tmp_path: Path) -> None:
    pixels = random_tiles()
    (tmp_path / "elsewhere.png").write_bytes(encode_sheet(pixels))
    path.symlink_to(tmp_path / "elsewhere.png")
    assert refusal(path, pixels) == "is a symbolic link: put the file itself in its place."
    path.unlink()
    os.mkfifo(path)
    assert refusal(path, pixels) == "is not a file: restore it from git."


def test_a_git_lfs_pointer_is_answered_with_what_to_run(path: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4' * 64}\nsize 12345\n")
    assert refusal(path, random_tiles()) == "is a Git LFS pointer, not the file: run 'git lfs pull'."


@pytest.mark.parametrize("size", [9_000, 50_000, 2**31 - 1])
def test_a_picture_of_another_size_is_refused_before_it_is_decoded(
    path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(PngImageFile, "load", lambda *_: pytest.fail("the pixels are decoded"))
    rows = zlib.compress(bytes(9_001) * 100)
    path.write_bytes(png(header(size, size), (b"IDAT", rows), (b"IEND", b"")))
    message = refusal(path, random_tiles())
    assert message.startswith((f"is {size} x {size}, but", "claims to be larger than any image that is read"))


def test_a_huge_sheet_is_refused_even_where_it_is_recorded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImageFile, "load", lambda *_: pytest.fail("the pixels are decoded"))
    path.write_bytes(png(header(51_200, 51_200), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")))
    with pytest.raises(DefuseError, match="claims to be larger than any image that is read"):
        read_sheet(path, SheetRecord(images=2500, sha256="0" * 64), TileFormat(mode="L", width=1024, height=1024))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"key\0\0" + zlib.compress(bytes(2_000_000))),
        (b"iTXt", b"key\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
        (b"pHYs", b"x"),
        (b"tRNS", b""),
        (b"acTL", b""),
        (b"fcTL", b"x"),
    ],
    ids=lambda chunk: chunk[0].decode(),
)
def test_a_picture_with_a_broken_or_swollen_chunk_is_refused(path: Path, chunk: tuple[bytes, bytes]) -> None:
    pixels = random_tiles(1)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels[0, 0]))
    path.write_bytes(png(header(8, 8), (b"IDAT", rows), (b"IEND", b"")))
    np.testing.assert_array_equal(read(path, pixels), pixels)
    path.write_bytes(png(header(8, 8), chunk, (b"IDAT", rows), (b"IEND", b"")))
    assert refusal(path, pixels).startswith("is not a readable PNG")


@same_folder
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
def test_a_damaged_sheet_gives_the_recorded_pixels_or_is_refused(path: Path, flips: list[tuple[float, int]]) -> None:
    pixels = random_tiles(3, 3)
    data = bytearray(encode_sheet(pixels))
    for place, bits in flips:
        data[int(place * len(data))] ^= bits
    path.write_bytes(data)
    with suppress(DefuseError):
        np.testing.assert_array_equal(read(path, pixels), pixels)
