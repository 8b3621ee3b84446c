from dataclasses import replace

import pytest
import torch

from pytest_defuse.discover.journal import Journal
from pytest_defuse.discover.latent_images import LatentImages, check_reconstructions, locate, sample_indices
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages
from tests.discover.synthetic_halves import BrighterHalf, HalvesGenerator, correct_codes

MODEL = Classifier(BrighterHalf(0.0507), 2)


class Mirrored(HalvesGenerator):
    """Decodes the left half on the right."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return super().decode(codes.flip(1))


class Constant(HalvesGenerator):
    """Decodes every code as an image with a darker left half: class 0."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return super().decode(torch.tensor([[-1.0, 1.0]]).expand(len(codes), 2))


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    """Sixty images on which the model is correct."""
    labels, codes = correct_codes(gap=1.5)
    return LabelledImages(HalvesGenerator().decode(codes), labels)


@pytest.fixture
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    journal = Journal(tmp_path_factory.mktemp("searches"), {"subject": "halves"})
    journal.open()
    return journal


def located(journal: Journal, images: LabelledImages, generator: ImageGenerator | None = None) -> LatentImages:
    evaluator = Evaluator(MODEL, None, generator or HalvesGenerator())
    return locate(evaluator, images, torch.arange(len(images)), journal, Progress())


def test_images_are_located_by_the_generator_s_encoder(journal: Journal, images: LabelledImages) -> None:
    latent_images = located(journal, images)
    assert (HalvesGenerator().decode(latent_images.means).int() - images.pixels.int()).abs().max() <= 1
    torch.testing.assert_close(latent_images.std, latent_images.means.std(dim=0))
    logits = MODEL.logits(HalvesGenerator().decode(latent_images.means))
    margins = (logits[:, 1] - logits[:, 0]) * (2 * images.labels - 1)
    torch.testing.assert_close(latent_images.logit_margins, margins, rtol=0.02, atol=1)
    assert (latent_images.accuracy, latent_images.reconstruction_accuracy) == (1, 1)


def test_unused_dimensions_are_not_active(journal: Journal, images: LabelledImages) -> None:
    latent_images = located(journal, images)
    assert (latent_images.latent_dim, latent_images.active_dimensions) == (2, 2)
    unused = replace(latent_images, means=latent_images.means * torch.tensor([1, 1e-3]))
    assert (unused.latent_dim, unused.active_dimensions) == (2, 1)


def test_chosen_images_are_located(journal: Journal, images: LabelledImages) -> None:
    chosen = torch.tensor([3, 8, 20])
    latent_images = locate(Evaluator(MODEL, None, HalvesGenerator()), images, chosen, journal, Progress())
    assert torch.equal(latent_images.indices, chosen)
    assert torch.equal(latent_images.labels, images.labels[chosen])
    assert torch.equal(latent_images.means, HalvesGenerator().encode(images.pixels[chosen])[0])


def test_a_generator_whose_images_the_model_cannot_read_is_refused(journal: Journal, images: LabelledImages) -> None:
    check_reconstructions(located(journal, images), 0.85)
    journal.about["generator"] = "another"
    other = Journal(journal.parent, journal.about)
    other.open()
    with pytest.raises(DefuseError, match=r"correct on 100.0% of the training .* on 0.0% of .* \(required: 85.0%\)"):
        check_reconstructions(located(other, images, Mirrored()), 0.85)


def test_a_generator_that_keeps_only_the_most_common_class_is_refused(journal: Journal, images: LabelledImages) -> None:
    zeros, ones = ((images.labels == label).nonzero().squeeze(1) for label in (0, 1))
    latent_images = located(journal, images[torch.cat([zeros.repeat(20), ones])], Constant())
    assert latent_images.reconstruction_accuracy > 0.95
    with pytest.raises(DefuseError, match=r"correct on 100.0% of the training images but on 50.0% of"):
        check_reconstructions(latent_images, 0.85)


def test_a_model_that_is_never_correct_is_refused(journal: Journal, images: LabelledImages) -> None:
    wrong = LabelledImages(images.pixels, 1 - images.labels)
    with pytest.raises(DefuseError, match="wrong on every reconstructed training image: check its checkpoint"):
        check_reconstructions(located(journal, wrong), 0.85)


def test_distant_codes_are_moved_within_the_radius(journal: Journal, images: LabelledImages) -> None:
    latent_images = located(journal, images)
    distant = 100 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    codes = torch.cat([latent_images.means, distant])

    def distances(codes: torch.Tensor) -> torch.Tensor:
        return ((codes - latent_images.centre) / latent_images.std).norm(dim=1)

    moved = latent_images.within_radius(codes)
    assert distances(moved).max() <= latent_images.radius * 1.0001
    within = distances(codes) <= latent_images.radius
    assert within[: len(images)].double().mean() > 0.9
    assert torch.equal(moved[within], codes[within])


@pytest.mark.parametrize(("count", "maximum"), [(10, 10), (10, 30), (1000, 7)])
def test_a_sample_is_all_images_or_a_seeded_choice(count: int, maximum: int) -> None:
    indices = sample_indices(count, maximum, 0)
    assert len(indices) == min(count, maximum)
    assert indices.tolist() == sorted(set(indices.tolist()))
    assert indices.max() < count
    assert torch.equal(indices, sample_indices(count, maximum, 0))
    assert count <= maximum or not torch.equal(indices, sample_indices(count, maximum, 1))
