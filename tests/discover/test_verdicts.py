import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.discover import compute as module
from pytest_defuse.discover.compute import CPU_BATCH_SIZES
from pytest_defuse.discover.generator import BetaVAE, GeneratorSettings, TrainedVAE
from pytest_defuse.discover.judges import Judges
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from pytest_defuse.subject.images import LabelledImages
from tests.discover.synthetic_halves import BrighterHalf, HalvesGenerator

MODEL = Classifier(BrighterHalf(0.0507), 2)
JUDGES = Judges([Classifier(BrighterHalf(), 2), Classifier(BrighterHalf(0.001), 2)])
CODES = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
SOURCE_LABELS = (CODES[:, 0] > CODES[:, 1]).long()
IMAGES = LabelledImages(HalvesGenerator().decode(CODES), SOURCE_LABELS)


class Viewing(nn.Module):
    """A model whose view() requires contiguous features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.conv(x).view(len(x), -1))
        return result


class Overflowing(BrighterHalf):
    """Returns NaN in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros(len(x), 1)
        return super().forward(x) + (torch.nan if (zeros @ zeros.T).dtype == torch.bfloat16 else 0)


def test_a_draw_fails_if_the_judges_contradict_the_model() -> None:
    verdicts = Evaluator(MODEL, JUDGES, HalvesGenerator()).verdicts(CODES, SOURCE_LABELS)
    pixels = HalvesGenerator().decode(CODES)
    labels, confident = JUDGES.labels(pixels)
    assert torch.equal(verdicts.predictions, MODEL.predict(pixels))
    assert torch.equal(verdicts.failed, confident & (labels != verdicts.predictions))
    assert torch.equal(verdicts.labels[verdicts.failed], labels[verdicts.failed])
    assert 0 < verdicts.failed.sum() < 300


def test_without_judges_a_draw_fails_if_the_model_contradicts_the_source_label() -> None:
    verdicts = Evaluator(MODEL, None, HalvesGenerator()).verdicts(CODES, SOURCE_LABELS)
    assert torch.equal(verdicts.labels, SOURCE_LABELS)
    assert torch.equal(verdicts.failed, verdicts.predictions != SOURCE_LABELS)


def test_no_codes_have_no_verdicts() -> None:
    verdicts = Evaluator(MODEL, JUDGES, HalvesGenerator()).verdicts(CODES[:0], SOURCE_LABELS[:0])
    assert [len(part) for part in vars(verdicts).values()] == [0, 0, 0, 0]
    assert verdicts.failed.dtype == torch.bool


def test_an_image_shows_a_label_if_the_judges_confidently_see_it() -> None:
    shown = Evaluator(MODEL, JUDGES, HalvesGenerator()).confidently_shows(CODES, 1)
    labels, confident = JUDGES.labels(HalvesGenerator().decode(CODES))
    assert torch.equal(shown, confident & (labels == 1))
    assert 0 < shown.sum() < 300


def test_draws_are_screened_in_the_fast_type_of_the_device() -> None:
    evaluator = Evaluator(MODEL, JUDGES, HalvesGenerator()).fastest(IMAGES, torch.arange(300))
    assert evaluator.compute.batch_size in CPU_BATCH_SIZES
    assert evaluator.compute.dtype == (torch.bfloat16 if trains_in_bfloat16("cpu") else torch.float32)
    assert (evaluator.model, evaluator.judges) == (MODEL, JUDGES)


def test_networks_run_as_the_fastest_evaluator_computes() -> None:
    model = Classifier(nn.Sequential(nn.Conv2d(1, 2, 8), nn.Conv2d(2, 2, 1), nn.Flatten()), 2)
    judges = Judges([Classifier(nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten()), 2)])
    generator = TrainedVAE(BetaVAE((1, 8, 8), GeneratorSettings(latent_dim=2)), "cpu")
    compute = Evaluator(model, judges, generator).fastest(IMAGES, torch.arange(300)).compute
    for classifier in (model, *judges.panel):
        assert classifier.module[0].weight.is_contiguous(memory_format=compute.memory_format)
    assert {n.batches.size for n in (model, *judges.panel, generator)} == {compute.batch_size}


def test_a_model_that_requires_contiguous_features_is_screened_in_that_format() -> None:
    evaluator = Evaluator(Classifier(Viewing(), 2), None, HalvesGenerator())
    expected = evaluator.verdicts(CODES, SOURCE_LABELS)
    evaluator = evaluator.fastest(IMAGES, torch.arange(300))
    assert evaluator.compute.memory_format == torch.contiguous_format
    assert torch.equal(evaluator.verdicts(CODES, SOURCE_LABELS).failed, expected.failed)


def test_a_model_that_overflows_in_the_fast_type_is_screened_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "trains_in_bfloat16", lambda device: True)  # every CPU can, not all of them fast
    evaluator = Evaluator(Classifier(Overflowing(), 2), None, HalvesGenerator())
    assert evaluator.fastest(IMAGES, torch.arange(300)).compute.dtype == torch.float32


def test_a_model_that_fails_in_every_type_raises_its_own_error() -> None:
    class Broken(BrighterHalf):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.nan

    evaluator = Evaluator(Classifier(Broken(), 2), None, HalvesGenerator()).fastest(IMAGES, torch.arange(300))
    with pytest.raises(DefuseError, match="NaN or infinite logits"):
        evaluator.verdicts(CODES, SOURCE_LABELS)


def test_codes_that_are_not_finite_are_refused() -> None:
    class NotFinite(HalvesGenerator):
        def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            return torch.full((len(pixels), 2), torch.nan), torch.ones(len(pixels), 2)

    with pytest.raises(DefuseError, match="encodes images as NaN or infinite codes"):
        Evaluator(MODEL, JUDGES, NotFinite()).fastest(IMAGES, torch.arange(300))
