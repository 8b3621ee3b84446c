import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.discover.summary import nearest_errors


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 40))
def test_the_nearest_error_has_the_smallest_distance(seed: int, image_count: int, error_count: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (image_count, 1, 3, 4), generator=numbers, dtype=torch.uint8)
    errors = torch.randint(0, 256, (error_count, 1, 3, 4), generator=numbers, dtype=torch.uint8)
    for image, distance, position in zip(images, *nearest_errors(images, errors), strict=True):
        distances = ((errors.double() - image) / 255).square().mean(dim=(1, 2, 3)).sqrt()
        assert distances[position] == pytest.approx(distances.min().item(), abs=1e-6)
        assert distance == pytest.approx(distances[position].item(), abs=1e-3)
