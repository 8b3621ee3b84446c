from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_defuse.discover.evaluator import Compute, Evaluator
from pytest_defuse.discover.failed_draws import Failures
from pytest_defuse.discover.journal import Journal
from pytest_defuse.discover.judges import Judges
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.search import Identified, identify
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.determinism import random_numbers
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from tests.discover.synthetic_halves import Brighter, Halves

DEFAULT = DiscoverySettings(budget=3000, noise=0.2, neighbour_noise=0.1)
PAPER = DiscoverySettings(mode="paper", draws=40, cap=5, a=2.0, b=2.0)


class Always(nn.Module):
    """Says one class of everything."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return 20 * nn.functional.one_hot(torch.full((len(x),), self.label), 2).float()


JUDGES = Judges([Classifier(Brighter(), 2), Classifier(Brighter(0.001), 2)])
MODEL = Classifier(Brighter(0.0507), 2)  # wrong where the left half is brighter by a little
CONTRARY = Judges([Classifier(Brighter(0.0507, -1e6), 2)])  # surely see what the model does not


@pytest.fixture(scope="module")
def located() -> LatentImages:
    """Sixty images on which the model is right, near and far from where it fails; their indices have gaps."""
    numbers = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    left = torch.rand(60, generator=numbers) * 6 - 3
    gap = torch.rand(60, generator=numbers) * 3 + 0.6
    means = torch.stack([left, torch.where(labels == 1, left - gap, left + gap)], dim=1)
    logits = MODEL.logits(Halves().decode(means))
    margin = (logits[:, 1] - logits[:, 0]) * (2 * labels - 1)
    assert (margin > 0).all()
    return LatentImages(
        images=torch.arange(60) * 3 + 1,
        labels=labels,
        means=means,
        margin=margin,
        right=torch.ones(60, dtype=torch.bool),
        centre=means.mean(dim=0),
        spread=means.std(dim=0),
        reach=torch.tensor(100.0),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def journal(folder: Path, name: str = "") -> Journal:
    journal = Journal(folder, {"subject": name or str(len(list(folder.iterdir())))})
    journal.opened()
    return journal


def search(
    folder: Path,
    located: LatentImages,
    *,
    settings: DiscoverySettings = DEFAULT,
    model: Classifier = MODEL,
    judges: Judges | None = JUDGES,
    compute: Compute | None = None,
    seed: int = 0,
    name: str = "",
    **changes: Any,
) -> Identified:
    evaluator = Evaluator(model, None if settings.mode == "paper" else judges, Halves(), compute)
    return identify(
        evaluator,
        located,
        settings.replace(**changes),
        seed=seed,
        journal=journal(folder, name),
        progress=Progress(),
    )


def equal(one: Failures, other: Failures) -> bool:
    return all(torch.equal(part, vars(other)[name]) for name, part in vars(one).items())


def draws(failures: Failures) -> set[tuple[float, ...]]:
    """Each failure as a tuple of image, draw and code."""
    numbers = (failures.images.tolist(), failures.draws.tolist(), failures.codes.tolist())
    return {(image, draw, *code) for image, draw, code in zip(*numbers, strict=True)}


@pytest.mark.parametrize("settings", [DEFAULT, PAPER], ids=["default", "paper"])
def test_failures_fail_on_the_pixels_that_a_png_holds(
    folder: Path, located: LatentImages, settings: DiscoverySettings
) -> None:
    failures = search(folder, located, settings=settings).failures
    pixels = Halves().decode(failures.codes)
    assert len(failures) > 10
    assert pixels.dtype == torch.uint8
    assert torch.equal(failures.predictions, MODEL.predict(pixels))
    assert (failures.labels != failures.predictions).all()
    if settings.mode == "paper":
        owners = torch.searchsorted(located.images, failures.images)
        assert torch.equal(failures.labels, located.labels[owners])
    else:
        seen, sure = JUDGES.verdicts(pixels)
        assert sure.all()
        assert torch.equal(failures.labels, seen)
    assert set(failures.images.tolist()) <= set(located.images.tolist())
    assert failures.images.unique(return_counts=True)[1].max() <= settings.cap
    assert len(draws(failures)) == len(failures)
    assert not draws(search(folder, located, settings=settings, seed=1).failures) & draws(failures)


def test_the_papers_search_is_the_literal_loop(folder: Path, located: LatentImages) -> None:
    found = search(folder, located, settings=PAPER)
    expected = set()
    for image, label, mean in zip(located.images.tolist(), located.labels.tolist(), located.means, strict=True):
        stream = random_numbers(0, 0, image)
        failed = []
        for draw in range(PAPER.draws):
            e = stream.beta(2.0, 2.0, 2)
            code = (mean + torch.from_numpy(e)).float()
            if MODEL.predict(Halves().decode(code[None])).item() != label:
                failed.append((float((e**2).sum()), draw, code.tolist()))
        expected |= {(image, draw, *code) for _, draw, code in sorted(failed)[: PAPER.cap]}
    assert draws(found.failures) == expected
    assert found.passes >= 60 * PAPER.draws


@pytest.mark.parametrize("settings", [DEFAULT, PAPER], ids=["default", "paper"])
@pytest.mark.parametrize("batch", [1, 64, 4096])
def test_the_size_of_a_batch_changes_nothing(
    folder: Path, located: LatentImages, settings: DiscoverySettings, batch: int
) -> None:
    expected = search(folder, located, settings=settings)
    found = search(folder, located, settings=settings, compute=Compute(batch=batch))
    assert equal(found.failures, expected.failures)
    assert found.passes == expected.passes


def test_screening_in_a_fast_type_stores_what_float32_says(folder: Path, located: LatentImages) -> None:
    found = search(folder, located, compute=Compute(torch.bfloat16, torch.channels_last, 128)).failures
    verdicts = Evaluator(MODEL, JUDGES, Halves()).verdicts(found.codes, found.labels)
    assert len(found) > 20
    assert verdicts.failed.all()
    assert torch.equal(verdicts.labels, found.labels)


def test_an_interrupted_search_goes_on_and_ends_the_same(folder: Path, located: LatentImages) -> None:
    class Interrupted(nn.Module):
        """A model whose machine is switched off at its n-th batch."""

        def __init__(self, calls: int) -> None:
            super().__init__()
            self.model, self.calls = Brighter(0.0507), calls

        def forward(self, x: Tensor) -> Tensor:
            self.calls -= 1
            if self.calls < 0:
                raise KeyboardInterrupt
            result: Tensor = self.model(x)
            return result

    expected = search(folder, located)
    interruptions = 0
    while True:
        try:
            found = search(folder, located, model=Classifier(Interrupted(5), 2), name="interrupted")
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions >= 2
    assert equal(found.failures, expected.failures)
    assert found.passes == expected.passes


@pytest.mark.parametrize(
    "judges",
    [
        Judges([Classifier(Brighter(0.0507), 2)]),
        Judges([Classifier(Brighter(sureness=1e-3), 2)]),
        Judges([Classifier(Always(0), 2), Classifier(Always(1), 2)]),
    ],
    ids=["agree with the model", "are unsure", "disagree"],
)
def test_there_are_no_failures_where_the_judges(folder: Path, located: LatentImages, judges: Judges) -> None:
    assert len(search(folder, located, judges=judges).failures) == 0


def test_the_budget_is_kept_and_spent(folder: Path, located: LatentImages) -> None:
    for budget in (700, 1500, 3000):
        assert 0.75 * budget < search(folder, located, budget=budget, cap=1000).passes <= 1.05 * budget
    assert search(folder, located, budget=30).passes == 60  # reading the reconstructions, and nothing else


def test_images_of_small_margin_come_first(folder: Path, located: LatentImages) -> None:
    """Enough for a first block at some twenty images; with judges that contradict always, each is seen."""
    found = search(folder, located, judges=CONTRARY, budget=60 + 8 * 2 * 20, cap=10)
    order = located.images[located.margin.argsort()]
    assert set(found.failures.images.tolist()) >= set(order[:8].tolist())
    assert len(found.failures.images.unique()) < 30


def test_no_image_is_starved_for_ever(folder: Path, located: LatentImages) -> None:
    found = search(folder, located, judges=CONTRARY, budget=60_000, cap=3)
    assert set(found.failures.images.tolist()) == set(located.images.tolist())


def test_no_more_failures_of_an_image_than_the_cap(folder: Path, located: LatentImages) -> None:
    found = search(folder, located, judges=CONTRARY, budget=60_000, cap=4)
    assert found.failures.images.unique(return_counts=True)[1].tolist() == [4] * 60


def test_more_failures_are_found_than_by_drawing_everywhere_alike(folder: Path, located: LatentImages) -> None:
    found = search(folder, located, cap=1000)
    at = torch.arange(60).repeat_interleave(found.passes // 60)
    e = torch.randn(len(at), 2, generator=torch.Generator().manual_seed(0))
    codes = located.means[at] + DEFAULT.noise * located.spread * e
    alike = Evaluator(MODEL, JUDGES, Halves()).verdicts(codes, located.labels[at]).failed.sum()
    assert len(found.failures) > 1.5 * alike


def test_misread_reconstructions_are_draws_too(folder: Path, located: LatentImages) -> None:
    misread = replace(located, margin=torch.where(torch.arange(60) < 3, -1.0, located.margin))
    found = search(folder, misread, judges=CONTRARY, budget=64).failures
    assert draws(found) == {(1 + 3 * n, 0, *located.means[n].tolist()) for n in range(3)}


class Smooth(Halves):
    """The same world before it becomes uint8."""

    def render(self, codes: Tensor) -> Tensor:
        halves = (0.5 + codes / 10).clamp(0, 1).repeat_interleave(4, dim=1)
        return halves[:, None, None].expand(-1, 1, 8, -1)


def test_a_draw_that_followed_the_gradient_fails_more_often(folder: Path, located: LatentImages) -> None:
    rare = Classifier(Brighter(0.004), 2)  # wrong where the left half is brighter by a hair
    judges = Judges([Classifier(Brighter(sureness=3000.0), 2)])
    random = DEFAULT.replace(noise=0.4)

    def found(settings: DiscoverySettings) -> Identified:
        evaluator = Evaluator(rare, judges, Smooth())
        result = identify(evaluator, located, settings, seed=0, journal=journal(folder), progress=Progress())
        assert result.passes <= 1.05 * settings.budget
        return result

    moved = found(random.replace(mode="gradient"))
    still = found(random)
    draws_moved = (moved.passes - 60) / (1 + random.steps)
    assert len(moved.failures) / draws_moved > 1.5 * len(still.failures) / (still.passes - 60)


def test_gradients_need_a_generator_that_has_them(folder: Path, located: LatentImages) -> None:
    with pytest.raises(DefuseError, match=r'mode="gradient"\) needs a generator with a method render'):
        search(folder, located, settings=DEFAULT.replace(mode="gradient"))
