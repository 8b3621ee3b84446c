import pytest
import torch

from pytest_defuse.discover.evaluator import Evaluator
from pytest_defuse.discover.journal import Journal
from pytest_defuse.discover.latent_images import LatentImages, check_reconstructions, locate, sample
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages
from tests.discover.synthetic_halves import Brighter, Halves

MODEL = Classifier(Brighter(0.0507), 2)


class Mirrored(Halves):
    """It shows the left half on the right."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return super().decode(codes.flip(1))


class Constant(Halves):
    """It always shows a darker left half: class 0."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return super().decode(torch.tensor([[-1.0, 1.0]]).expand(len(codes), 2))


class Lost(Halves):
    """Its codes are NaN."""

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((len(pixels), 2), torch.nan), torch.ones(len(pixels), 2)


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    """Sixty images on which the model is right."""
    numbers = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    left = torch.rand(60, generator=numbers) * 6 - 3
    gap = torch.rand(60, generator=numbers) * 1.5 + 0.6
    codes = torch.stack([left, torch.where(labels == 1, left - gap, left + gap)], dim=1)
    return LabelledImages(Halves().decode(codes), labels)


@pytest.fixture
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    journal = Journal(tmp_path_factory.mktemp("searches"), {"subject": "halves"})
    journal.opened()
    return journal


def located(journal: Journal, images: LabelledImages, generator: ImageGenerator | None = None) -> LatentImages:
    evaluator = Evaluator(MODEL, None, generator or Halves())
    return locate(evaluator, images, torch.arange(len(images)), journal, Progress())


def test_images_are_located_where_the_generator_puts_them(journal: Journal, images: LabelledImages) -> None:
    there = located(journal, images)
    assert (Halves().decode(there.means).int() - images.pixels.int()).abs().max() <= 1
    torch.testing.assert_close(there.spread, there.means.std(dim=0))
    logits = MODEL.logits(Halves().decode(there.means))
    torch.testing.assert_close(there.margin, (logits[:, 1] - logits[:, 0]) * (2 * images.labels - 1), rtol=0.02, atol=1)
    assert (there.accuracy, there.reconstruction_accuracy) == (1, 1)


def test_some_of_the_images_are_located(journal: Journal, images: LabelledImages) -> None:
    chosen = torch.tensor([3, 8, 20])
    there = locate(Evaluator(MODEL, None, Halves()), images, chosen, journal, Progress())
    assert torch.equal(there.images, chosen)
    assert torch.equal(there.labels, images.labels[chosen])
    assert torch.equal(there.means, Halves().encode(images.pixels[chosen])[0])


def test_a_generator_whose_images_the_model_cannot_read_is_refused(journal: Journal, images: LabelledImages) -> None:
    check_reconstructions(located(journal, images), 0.85)
    journal.about["generator"] = "another"
    elsewhere = Journal(journal.parent, journal.about)
    elsewhere.opened()
    with pytest.raises(DefuseError, match=r"right on 100.0% of the training images but on 0.0% of .* 85.0% is needed"):
        check_reconstructions(located(elsewhere, images, Mirrored()), 0.85)


def test_a_generator_that_keeps_only_the_commonest_class_is_refused(journal: Journal, images: LabelledImages) -> None:
    most = torch.cat([(images.labels == 0).nonzero().squeeze(1).repeat(20), (images.labels == 1).nonzero().squeeze(1)])
    imbalanced = images[most]
    there = located(journal, LabelledImages(imbalanced.pixels, imbalanced.labels), Constant())
    assert there.reconstruction_accuracy > 0.95
    with pytest.raises(DefuseError, match=r"right on 100.0% of the training images but on 50.0% of"):
        check_reconstructions(there, 0.85)


def test_a_model_that_is_never_right_is_refused(journal: Journal, images: LabelledImages) -> None:
    wrong = LabelledImages(images.pixels, 1 - images.labels)
    with pytest.raises(DefuseError, match="wrong on every reconstructed training image: check its checkpoint"):
        check_reconstructions(located(journal, wrong), 0.85)


def test_codes_that_are_not_finite_are_refused(journal: Journal, images: LabelledImages) -> None:
    with pytest.raises(DefuseError, match="encodes images as NaN or infinite codes"):
        located(journal, images, Lost())


def test_codes_beyond_all_images_are_drawn_back(journal: Journal, images: LabelledImages) -> None:
    there = located(journal, images)
    codes = torch.cat([there.means, 100 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))])
    drawn = there.on_manifold(codes)
    distances = ((drawn - there.centre) / there.spread).norm(dim=1)
    assert distances.max() <= there.reach * 1.0001
    inside = ((codes - there.centre) / there.spread).norm(dim=1) <= there.reach
    assert inside[: len(images)].double().mean() > 0.9
    assert torch.equal(drawn[inside], codes[inside])


@pytest.mark.parametrize(("count", "most"), [(10, 10), (10, 30), (1000, 7)])
def test_a_sample_is_all_images_or_a_seeded_choice(count: int, most: int) -> None:
    chosen = sample(count, most, 0)
    assert len(chosen) == min(count, most)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert chosen.max() < count
    assert torch.equal(chosen, sample(count, most, 0))
    assert count <= most or not torch.equal(chosen, sample(count, most, 1))
