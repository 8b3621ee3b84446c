import pytest
import torch

from pytest_defuse.correct import shifts
from pytest_defuse.correct.shifts import SHIFTS, shifted_copies, shifted_parts
from pytest_defuse.subject.images import LabelledImages


def bars(count: int, channels: int = 1, size: int = 28) -> LabelledImages:
    """Bright bars at random positions on a dark background."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.zeros(count, channels, size, size, dtype=torch.uint8)
    for image, start in zip(pixels, torch.randint(size // 2, (count,), generator=random), strict=True):
        image[:, :, start : start + size // 4] = 200
    return LabelledImages(pixels, torch.arange(count) % 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 33])
def test_every_copy_is_changed_a_little(channels: int, size: int) -> None:
    images = bars(20, channels, size)
    copies = shifted_copies(images)
    assert list(copies) == ["blur", "noise", "affine", "contrast", "jpeg"]
    for copy in copies.values():
        assert copy.pixels.shape == images.pixels.shape
        assert copy.pixels.dtype == torch.uint8
        assert copy.labels is images.labels
        changed = (copy.pixels.float() - images.pixels.float()).abs().mean() / 255
        assert 0 < changed < 0.15


def test_copies_do_not_depend_on_global_random_numbers() -> None:
    first = shifted_copies(bars(30))
    torch.rand(17)
    second = shifted_copies(bars(30))
    assert all(torch.equal(first[name].pixels, second[name].pixels) for name in SHIFTS)


def test_an_images_copy_does_not_depend_on_those_after_it() -> None:
    all_copies, first_copies = shifted_copies(bars(30)), shifted_copies(bars(30)[:7])
    for name in SHIFTS:
        assert torch.equal(all_copies[name].pixels[:7], first_copies[name].pixels)


def test_global_random_numbers_are_not_changed() -> None:
    before = torch.get_rng_state()
    shifted_copies(bars(5))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", SHIFTS)
def test_parts_of_any_size_give_the_same_copy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, whole = bars(30).pixels, shifted_copies(bars(30))[name].pixels
    monkeypatch.setattr(shifts, "PART_VALUES", 4 * 28 * 28)
    parts = list(shifted_parts(images, name))
    assert [len(part) for part in parts] == [4] * 7 + [2]
    assert torch.equal(torch.cat(parts), whole)
