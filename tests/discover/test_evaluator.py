import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.discover.evaluator import CPU_BATCHES, Compute, Evaluator
from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from tests.discover.synthetic_halves import Brighter, Halves

MODEL = Classifier(Brighter(0.0507), 2)
JUDGES = Judges([Classifier(Brighter(), 2), Classifier(Brighter(0.001), 2)])
CODES = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
SOURCES = (CODES[:, 0] > CODES[:, 1]).long()


class Viewing(nn.Module):
    """A model whose view() needs contiguous features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.conv(x).view(len(x), -1))
        return result


class Overflowing(Brighter):
    """NaN in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        dark = torch.zeros(len(x), 1)
        return super().forward(x) + (torch.nan if (dark @ dark.T).dtype == torch.bfloat16 else 0)


def test_judges_against_the_model_are_failures() -> None:
    verdicts = Evaluator(MODEL, JUDGES, Halves()).verdicts(CODES, SOURCES)
    pixels = Halves().decode(CODES)
    seen, sure = JUDGES.verdicts(pixels)
    assert torch.equal(verdicts.predictions, MODEL.predict(pixels))
    assert torch.equal(verdicts.failed, sure & (seen != verdicts.predictions))
    assert torch.equal(verdicts.labels[verdicts.failed], seen[verdicts.failed])
    assert 0 < verdicts.failed.sum() < 300


def test_without_judges_the_source_s_class_is_the_truth() -> None:
    verdicts = Evaluator(MODEL, None, Halves()).verdicts(CODES, SOURCES)
    assert torch.equal(verdicts.labels, SOURCES)
    assert torch.equal(verdicts.failed, verdicts.predictions != SOURCES)


def test_no_codes_have_no_verdicts() -> None:
    verdicts = Evaluator(MODEL, JUDGES, Halves()).verdicts(CODES[:0], SOURCES[:0])
    assert [len(part) for part in vars(verdicts).values()] == [0, 0, 0]
    assert verdicts.failed.dtype == torch.bool


def test_what_shows_a_class_is_surely_seen_as_it() -> None:
    shown = Evaluator(MODEL, JUDGES, Halves()).shown(CODES, 1)
    seen, sure = JUDGES.verdicts(Halves().decode(CODES))
    assert torch.equal(shown, sure & (seen == 1))
    assert 0 < shown.sum() < 300


def test_the_fastest_way_is_in_the_device_s_type() -> None:
    evaluator = Evaluator(MODEL, JUDGES, Halves())
    compute = evaluator.fastest(CODES, SOURCES)
    assert compute.batch in CPU_BATCHES
    assert compute.fast == (torch.bfloat16 if trains_in_bfloat16("cpu") else torch.float32)
    assert evaluator.compute == Compute()


def test_a_model_that_views_its_features_is_screened_in_its_own_layout() -> None:
    evaluator = Evaluator(Classifier(Viewing(), 2), None, Halves())
    expected = evaluator.verdicts(CODES, SOURCES)
    compute = evaluator.fastest(CODES, SOURCES)
    assert compute.layout == torch.contiguous_format
    evaluator.use(compute)
    assert torch.equal(evaluator.verdicts(CODES, SOURCES).failed, expected.failed)


@pytest.mark.skipif(not trains_in_bfloat16("cpu"), reason="this CPU computes in float32")
def test_a_model_that_overflows_in_the_fast_type_is_screened_in_float32() -> None:
    evaluator = Evaluator(Classifier(Overflowing(), 2), None, Halves())
    assert evaluator.fastest(CODES, SOURCES).fast == torch.float32


def test_a_model_that_no_way_can_run_says_its_own_error() -> None:
    class Broken(Brighter):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.nan

    evaluator = Evaluator(Classifier(Broken(), 2), None, Halves())
    evaluator.use(evaluator.fastest(CODES, SOURCES))
    with pytest.raises(DefuseError, match="NaN or infinite logits"):
        evaluator.verdicts(CODES, SOURCES)
