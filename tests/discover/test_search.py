from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.discover.compute import Compute
from pytest_defuse.discover.failed_draws import FailedDraws
from pytest_defuse.discover.journal import Journal
from pytest_defuse.discover.judges import Judges
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.search import SearchResult, search_failures
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.runtime.determinism import Stream, random_numbers
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from tests.discover.synthetic_halves import BrighterHalf, HalvesGenerator, correct_codes

DEFAULT = DiscoverySettings(budget=3000, noise=0.2, neighbour_noise=0.1)
PAPER = DiscoverySettings(mode="paper", draws=40, cap=5, a=2.0, b=2.0)


class Constant(nn.Module):
    """Confidently predicts one class for every image."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return 20 * nn.functional.one_hot(torch.full((len(x),), self.label), 2).float()


JUDGES = Judges([Classifier(BrighterHalf(), 2), Classifier(BrighterHalf(0.001), 2)])
MODEL = Classifier(BrighterHalf(0.0507), 2)  # wrong where the left half is a little brighter
CONTRADICTING = Judges([Classifier(BrighterHalf(0.0507, -1e6), 2)])  # confidently contradict the model


@pytest.fixture(scope="module")
def images() -> LatentImages:
    """Sixty images on which the model is correct, near and far from where it fails; their indices have gaps."""
    labels, means = correct_codes(gap=3)
    logits = MODEL.logits(HalvesGenerator().decode(means))
    margins = (logits[:, 1] - logits[:, 0]) * (2 * labels - 1)
    assert (margins > 0).all()
    return LatentImages(
        indices=torch.arange(60) * 3 + 1,
        labels=labels,
        means=means,
        logit_margins=margins,
        correct=torch.ones(60, dtype=torch.bool),
        centre=means.mean(dim=0),
        std=means.std(dim=0),
        radius=torch.tensor(100.0),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def journal(folder: Path, name: str = "") -> Journal:
    journal = Journal(folder, {"subject": name or str(len(list(folder.iterdir())))})
    journal.open()
    return journal


def search(
    folder: Path,
    images: LatentImages,
    *,
    settings: DiscoverySettings = DEFAULT,
    model: Classifier = MODEL,
    judges: Judges = JUDGES,
    generator: ImageGenerator | None = None,
    compute: Compute | None = None,
    seed: int = 0,
    name: str = "",
    **changes: Any,
) -> SearchResult:
    panel = None if settings.mode == "paper" else judges
    evaluator = Evaluator(model, panel, generator or HalvesGenerator(), compute or Compute())
    return search_failures(
        evaluator,
        images,
        settings.replace(**changes),
        seed=seed,
        journal=journal(folder, name),
        progress=Progress(),
    )


def equal(one: FailedDraws, other: FailedDraws) -> bool:
    return all(torch.equal(part, vars(other)[name]) for name, part in vars(one).items())


def draws(failures: FailedDraws) -> set[tuple[float, ...]]:
    """Each failure as a tuple of image, draw and code."""
    numbers = (failures.image_indices.tolist(), failures.draw_numbers.tolist(), failures.codes.tolist())
    return {(image, draw, *code) for image, draw, code in zip(*numbers, strict=True)}


@pytest.mark.parametrize("settings", [DEFAULT, PAPER], ids=["default", "paper"])
def test_failures_fail_on_the_pixels_that_a_png_stores(
    folder: Path, images: LatentImages, settings: DiscoverySettings
) -> None:
    failures = search(folder, images, settings=settings).failures
    pixels = HalvesGenerator().decode(failures.codes)
    assert len(failures) > 10
    assert pixels.dtype == torch.uint8
    assert torch.equal(failures.predictions, MODEL.predict(pixels))
    assert (failures.labels != failures.predictions).all()
    if settings.mode == "paper":
        owners = torch.searchsorted(images.indices, failures.image_indices)
        assert torch.equal(failures.labels, images.labels[owners])
    else:
        labels, confident = JUDGES.labels(pixels)
        assert confident.all()
        assert torch.equal(failures.labels, labels)
    assert set(failures.image_indices.tolist()) <= set(images.indices.tolist())
    assert failures.image_indices.unique(return_counts=True)[1].max() <= settings.cap
    assert len(draws(failures)) == len(failures)
    assert not draws(search(folder, images, settings=settings, seed=1).failures) & draws(failures)


def test_the_paper_search_equals_the_literal_loop(folder: Path, images: LatentImages) -> None:
    found = search(folder, images, settings=PAPER)
    expected = set()
    for image, label, mean in zip(images.indices.tolist(), images.labels.tolist(), images.means, strict=True):
        stream = random_numbers(0, Stream.PAPER_DRAWS, image)
        failed = []
        for draw in range(PAPER.draws):
            e = stream.beta(2.0, 2.0, 2)
            code = (mean + torch.from_numpy(e)).float()
            if MODEL.predict(HalvesGenerator().decode(code[None])).item() != label:
                failed.append((float((e**2).sum()), draw, code.tolist()))
        expected |= {(image, draw, *code) for _, draw, code in sorted(failed)[: PAPER.cap]}
    assert draws(found.failures) == expected
    assert found.passes >= 60 * PAPER.draws


@pytest.mark.slow
@pytest.mark.parametrize("settings", [DEFAULT, PAPER], ids=["default", "paper"])
@pytest.mark.parametrize("batch_size", [1, 64, 4096])
def test_the_result_does_not_depend_on_the_batch_size(
    folder: Path, images: LatentImages, settings: DiscoverySettings, batch_size: int
) -> None:
    expected = search(folder, images, settings=settings)
    found = search(folder, images, settings=settings, compute=Compute(batch_size=batch_size))
    assert equal(found.failures, expected.failures)
    assert found.passes == expected.passes


def test_failures_that_are_screened_in_a_fast_type_fail_in_float32(folder: Path, images: LatentImages) -> None:
    found = search(folder, images, compute=Compute(torch.bfloat16, torch.channels_last, 128)).failures
    verdicts = Evaluator(MODEL, JUDGES, HalvesGenerator()).verdicts(found.codes, found.labels)
    assert len(found) > 20
    assert verdicts.failed.all()
    assert torch.equal(verdicts.labels, found.labels)


def test_an_interrupted_search_resumes_and_ends_the_same(folder: Path, images: LatentImages) -> None:
    class Interrupted(nn.Module):
        """A model that is interrupted at its n-th batch."""

        def __init__(self, calls: int) -> None:
            super().__init__()
            self.model, self.calls = BrighterHalf(0.0507), calls

        def forward(self, x: Tensor) -> Tensor:
            self.calls -= 1
            if self.calls < 0:
                raise KeyboardInterrupt
            result: Tensor = self.model(x)
            return result

    expected = search(folder, images)
    interruptions = 0
    while True:
        try:
            found = search(folder, images, model=Classifier(Interrupted(5), 2), name="interrupted")
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions >= 2
    assert equal(found.failures, expected.failures)
    assert found.passes == expected.passes


@pytest.mark.parametrize(
    "judges",
    [
        Judges([Classifier(BrighterHalf(0.0507), 2)]),
        Judges([Classifier(BrighterHalf(scale=1e-3), 2)]),
        Judges([Classifier(Constant(0), 2), Classifier(Constant(1), 2)]),
    ],
    ids=["agree with the model", "are not confident", "disagree"],
)
def test_there_are_no_failures_if_the_judges(folder: Path, images: LatentImages, judges: Judges) -> None:
    assert len(search(folder, images, judges=judges).failures) == 0


class Counted(Classifier):
    """Counts the images that it classifies."""

    passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += len(images)
        return super().forward(images)


@pytest.mark.parametrize("mode", ["default", "gradient", "paper"])
def test_every_forward_pass_is_counted(
    folder: Path, images: LatentImages, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Counted(BrighterHalf(0.0507), 2)
    panel = [Counted(BrighterHalf(), 2), Counted(BrighterHalf(0.001), 2)]
    settings = PAPER if mode == "paper" else DEFAULT.replace(mode=mode)
    monkeypatch.setattr("pytest_defuse.discover.compute.BATCH_MULTIPLE", 1)  # no copies that fill a batch
    result = search(folder, images, settings=settings, model=model, judges=Judges(panel))
    assert result.passes == 120 + model.passes
    assert result.judge_passes == sum(judge.passes for judge in panel)
    assert (result.judge_passes > 0) == (mode != "paper")


def test_the_budget_is_spent_and_not_exceeded(folder: Path, images: LatentImages) -> None:
    for budget in (700, 1500, 3000):
        assert 0.75 * budget < search(folder, images, budget=budget, cap=1000).passes <= 1.05 * budget
    assert search(folder, images, budget=30).passes == 120  # on images and reconstructions, nothing else


def test_images_with_a_small_logit_margin_come_first(folder: Path, images: LatentImages) -> None:
    # The budget is enough for a first block at about twenty images. The judges always contradict, so each block fails.
    found = search(folder, images, judges=CONTRADICTING, budget=120 + 8 * 2 * 20, cap=10)
    order = images.indices[images.logit_margins.argsort()]
    assert set(found.failures.image_indices.tolist()) >= set(order[:8].tolist())
    assert len(found.failures.image_indices.unique()) < 30


def test_every_image_gets_draws_in_the_end(folder: Path, images: LatentImages) -> None:
    found = search(folder, images, judges=CONTRADICTING, budget=60_000, cap=3)
    assert set(found.failures.image_indices.tolist()) == set(images.indices.tolist())


def test_at_most_cap_failures_per_image_are_kept(folder: Path, images: LatentImages) -> None:
    found = search(folder, images, judges=CONTRADICTING, budget=60_000, cap=4)
    assert found.failures.image_indices.unique(return_counts=True)[1].tolist() == [4] * 60


def test_more_failures_are_found_than_with_uniform_draws(folder: Path, images: LatentImages) -> None:
    found = search(folder, images, cap=1000)
    positions = torch.arange(60).repeat_interleave(found.passes // 60)
    e = torch.randn(len(positions), 2, generator=torch.Generator().manual_seed(0))
    codes = images.means[positions] + DEFAULT.noise * images.std * e
    uniform = Evaluator(MODEL, JUDGES, HalvesGenerator()).verdicts(codes, images.labels[positions]).failed.sum()
    assert len(found.failures) > 1.5 * uniform


def test_misread_reconstructions_are_failures_too(folder: Path, images: LatentImages) -> None:
    misread = replace(images, logit_margins=torch.where(torch.arange(60) < 3, -1.0, images.logit_margins))
    found = search(folder, misread, judges=CONTRADICTING, budget=124).failures
    assert draws(found) == {(1 + 3 * n, 0, *images.means[n].tolist()) for n in range(3)}


def test_draws_that_follow_the_gradient_fail_more_often(folder: Path, images: LatentImages) -> None:
    rare = Classifier(BrighterHalf(0.004), 2)  # wrong where the left half is slightly brighter
    judges = Judges([Classifier(BrighterHalf(scale=3000.0), 2)])
    settings = DEFAULT.replace(noise=0.4)
    random = search(folder, images, model=rare, judges=judges, settings=settings)
    gradient = search(folder, images, model=rare, judges=judges, settings=settings, mode="gradient")
    assert gradient.passes <= 1.05 * settings.budget
    gradient_draws = (gradient.passes - 120) / (1 + settings.steps)
    assert len(gradient.failures) / gradient_draws > 1.5 * len(random.failures) / (random.passes - 120)


def test_gradients_require_a_generator_that_renders(folder: Path, images: LatentImages) -> None:
    class WithoutRender:
        hash = "1" * 64
        encode, decode = HalvesGenerator.encode, HalvesGenerator.decode

    with pytest.raises(DefuseError, match=r'mode="gradient"\) needs a generator with a method render'):
        search(folder, images, generator=WithoutRender(), mode="gradient")
