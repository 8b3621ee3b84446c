import math

import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.discover.generator_report import check_generator, generator_report
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages, content_hash, quantise


class Linear:
    """Principal components as a generator: fixed, and not a network."""

    def __init__(self, pixels: Tensor, dimensions: int, deviation: float = 0.1) -> None:
        flat = pixels.flatten(1).float() / 255
        self.shape, self.mean, self.deviation = pixels.shape[1:], flat.mean(dim=0), deviation
        self.components = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:dimensions]
        self.hash = content_hash(self.mean, self.components)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        codes = (pixels.flatten(1).float() / 255 - self.mean) @ self.components.T
        return codes, torch.full_like(codes, self.deviation)

    def decode(self, codes: Tensor) -> Tensor:
        return quantise((codes @ self.components + self.mean).clamp(0, 1)).unflatten(1, self.shape)


class LeftOrRight(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        excess = images[..., 4:].mean(dim=(1, 2, 3)) - images[..., :4].mean(dim=(1, 2, 3))
        return torch.stack([-excess, excess], dim=1)


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    """A left and a right half of any brightness; the label says which is brighter."""
    levels = torch.randint(256, (80, 1, 1, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = (levels[:, 0, 0, 1] > levels[:, 0, 0, 0]).long()
    return LabelledImages(levels.repeat_interleave(4, dim=3).repeat(1, 1, 8, 1), labels)


def test_any_generator_with_encode_and_decode_will_do(images: LabelledImages) -> None:
    generator: ImageGenerator = Linear(images.pixels, 2)
    model = Classifier(LeftOrRight(), 2)
    report = generator_report(generator, model, images[:60], images[60:], judge=model)
    assert (report.latent, report.active) == (2, 2)
    assert min(report.model_training.reconstructions, report.model_held_out.reconstructions) > 0.9
    assert report.judge_training == report.model_training


def test_the_report_sees_what_a_generator_loses(images: LabelledImages) -> None:
    sums = images.pixels.float().mean(dim=(1, 2, 3)).view(-1, 1, 1, 1).expand_as(images.pixels)
    blind = Linear(quantise(sums / 255), 1)  # its one component is the brightness of both halves together
    report = generator_report(blind, Classifier(LeftOrRight(), 2), images[:60], images[60:])
    assert report.model_training.images == 1
    assert report.model_training.reconstructions < 0.8
    assert report.active == report.latent == 1
    assert report.judge_training is None


def test_the_divergence_is_that_of_gaussians(images: LabelledImages) -> None:
    class Constant(Linear):
        def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            return torch.full((len(pixels), 2), 3.0), torch.full((len(pixels), 2), 0.5)

    report = generator_report(Constant(images.pixels, 2), Classifier(LeftOrRight(), 2), images, images)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(3.0, 0.5), torch.distributions.Normal(0.0, 1.0)
    )
    assert report.kl == pytest.approx(2 * expected.item())
    assert report.active == 0
    assert math.isfinite(report.kl)


@pytest.mark.parametrize(
    ("codes", "decoded", "message"),
    [
        (torch.zeros(2), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"means of shape \(2,\)"),
        (torch.zeros(3, 4), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"means of shape \(3, 4\)"),
        (torch.zeros(2, 4), torch.zeros(2, 1, 8, 8), r"decodes to torch.float32"),
        (torch.zeros(2, 4), torch.zeros(2, 1, 9, 8, dtype=torch.uint8), r"shape \(2, 1, 9, 8\)"),
    ],
)
def test_a_generator_of_the_wrong_shape_is_refused(codes: Tensor, decoded: Tensor, message: str) -> None:
    class Wrong:
        hash = "0" * 64

        def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            return codes, codes

        def decode(self, codes: Tensor) -> Tensor:
            return decoded

    with pytest.raises(DefuseError, match=message):
        check_generator(Wrong(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
