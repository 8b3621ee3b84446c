import pytest
import torch

from pytest_defuse.correct.data import stratified_sample
from pytest_defuse.subject.images import LabelledImages


@pytest.mark.parametrize("count", [10, 100, 333])
def test_a_sample_has_each_class_in_proportion(count: int) -> None:
    labels = torch.arange(1000) // 100  # sorted by class, 100 images of each
    pixels = torch.stack([labels, torch.arange(1000) % 100], dim=1).byte().view(-1, 1, 1, 2)
    sample = stratified_sample(LabelledImages(pixels, labels), count)
    assert len(sample) == count == len(sample.pixels.unique(dim=0))
    assert (sample.labels.bincount(minlength=10) - count / 10).abs().max() < 1
    assert torch.equal(sample.pixels[..., 0].flatten().long(), sample.labels)


def test_all_images_are_the_sample_if_they_are_few() -> None:
    images = LabelledImages(torch.arange(5).view(-1, 1, 1, 1), torch.zeros(5))
    assert stratified_sample(images, 5) is images
