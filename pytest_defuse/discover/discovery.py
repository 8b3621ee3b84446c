"""Discovery: from the model under test to candidate scenarios."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pytest_defuse.classifier import Classifier
from pytest_defuse.determinism import seeded
from pytest_defuse.discover.generator import Generator, GeneratorSettings, trained_generator
from pytest_defuse.discover.identify import identify, locate
from pytest_defuse.discover.judges import Judges, JudgeSettings, trained_judges
from pytest_defuse.discover.regions import Region, distill, merge_overlapping
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.accuracy import wilson_interval
from pytest_defuse.progress import Progress
from pytest_defuse.subject import Subject


@dataclass(frozen=True, eq=False)
class Candidate:
    """A confirmed region with the pictures of its two sheets.

    Attributes:
        region: where it is.
        failed, drawn: of ``drawn`` fresh draws, ``failed`` show the region's label to the judges while the
            model says another class.
        correction, held_out: uint8 N x C x H x W, further draws on which the judges surely see the label.
        correction_predictions, held_out_predictions: int64 N, what the model says of them.
    """

    region: Region
    failed: int
    drawn: int
    correction: Tensor
    held_out: Tensor
    correction_predictions: Tensor
    held_out_predictions: Tensor

    @property
    def failure_rate(self) -> float:
        """The share of fresh draws that fail."""
        return self.failed / self.drawn

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the failure rate."""
        return wilson_interval(self.failed, self.drawn)


@dataclass(frozen=True, eq=False, repr=False)
class Discovery:
    """What was found, and what it cost.

    Attributes:
        candidates: most weight first.
        settings, seed: what it was asked for.
        accuracy, reconstruction_accuracy: of the model, on training images and their reconstructions.
        judge_accuracies: of each judge, on the test set.
        failures: draws on which the model failed, the judges being sure.
        regions: regions before confirmation.
        generator_hash, model_hash, data_hash: sha256 of the weights and of the training images.
    """

    candidates: tuple[Candidate, ...]
    settings: DiscoverySettings
    seed: int
    accuracy: float
    reconstruction_accuracy: float
    judge_accuracies: tuple[float, ...]
    failures: int
    regions: int
    generator_hash: str
    model_hash: str
    data_hash: str

    def __repr__(self) -> str:
        return f"<discovery: {len(self.candidates)} candidates of {self.regions} regions, {self.failures} failures>"


def discover(
    subject: Subject,
    settings: DiscoverySettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    cache: Path,
    progress: Progress | None = None,
    starts: Tensor | None = None,
) -> Discovery:
    """Find regions of latent space on which the subject's model surely fails (Defuse, sections 3.1-3.2).

    Args:
        starts: bool, one a training image: the images to search around, such as those that meet the rule of
            a failure mode (:func:`pytest_defuse.explain.matching_images`); default: all.
        cache: the folder in which trained generators and judges are kept.

    Raises:
        DefuseError: data, model or generator that cannot be used; the message says what to do.
    """
    settings = settings or DiscoverySettings()
    progress = progress or Progress()
    with seeded(seed):
        images = subject.train_images
        subject.check_images(images.pixels, "train")
        if len(images.labels.unique()) < 2:
            raise DefuseError("train holds images of one class only: discovery needs at least two.")
        model = subject.classifier(device)
        model.logits(images.pixels[:2])  # a model that cannot be used is refused before anything is trained
        judges = _judges(subject, settings, seed, device, cache, progress)
        generator = trained_generator(
            images,
            GeneratorSettings(latent=settings.latent, beta=settings.beta, steps=settings.generator_steps),
            seed=seed,
            device=device,
            cache=cache,
            progress=progress,
        )
        located = locate(model, generator, images, settings.worst_reconstruction)
        failures = identify(model, judges, generator, located, settings, seed=seed, progress=progress, starts=starts)
        regions = merge_overlapping(distill(failures, settings, seed), settings.max_overlap)
        candidates = _confirmed(regions, model, judges, generator, settings, seed, progress)
        test = subject.test_images
        judge_accuracies = tuple(
            (judge.predict(test.pixels) == test.labels).double().mean().item() for judge in judges.panel
        )
    return Discovery(
        candidates=tuple(candidates),
        settings=settings,
        seed=seed,
        accuracy=located.accuracy,
        reconstruction_accuracy=located.reconstruction_accuracy,
        judge_accuracies=judge_accuracies,
        failures=len(failures),
        regions=len(regions),
        generator_hash=generator.hash,
        model_hash=model.hash,
        data_hash=images.hash,
    )


def _judges(
    subject: Subject,
    settings: DiscoverySettings,
    seed: int,
    device: torch.device | str,
    cache: Path,
    progress: Progress,
) -> Judges:
    if subject.judges is not None:
        given = [
            Classifier(
                judge,
                len(subject.classes),
                normalize=subject.normalize,
                device=device,
                name=f"judge {position} of subject {subject.name!r}",
            )
            for position, judge in enumerate(subject.judges, start=1)
        ]
        for judge in given:
            judge.logits(subject.train_images.pixels[:2])  # refused, like the model, before anything is trained
        return Judges(given, settings.confidence)
    panel = trained_judges(
        subject.train_images,
        len(subject.classes),
        JudgeSettings(),
        seed=seed,
        device=device,
        cache=cache,
        progress=progress,
    )
    return Judges(panel, settings.confidence)


def _confirmed(
    regions: list[Region],
    model: Classifier,
    judges: Judges,
    generator: Generator,
    settings: DiscoverySettings,
    seed: int,
    progress: Progress,
) -> list[Candidate]:
    """The regions whose fresh draws surely fail in more than rho, with pictures from yet other draws."""
    candidates: list[Candidate] = []
    with progress.task("confirming regions", len(regions)) as advance:
        for number, region in enumerate(regions):
            pixels = generator.decode(region.codes(settings.confirmations, seed, 2, number))
            predictions = model.predict(pixels)
            seen, failed = judges.contradict(pixels, predictions)
            count = int((failed & (seen == region.label)).sum())
            if wilson_interval(count, settings.confirmations)[0] > settings.rho:
                candidates.append(_candidate(region, count, model, judges, generator, settings, seed, number))
            advance(1, f"{len(candidates)} confirmed")
            if len(candidates) == settings.candidates:
                break
    return candidates


def _candidate(
    region: Region,
    failed: int,
    model: Classifier,
    judges: Judges,
    generator: Generator,
    settings: DiscoverySettings,
    seed: int,
    number: int,
) -> Candidate:
    wanted, tiles = 2 * settings.images, []
    # The region was confirmed, so more than rho of its draws are sure: a few rounds always suffice.
    for attempt in range(4 * int(1 / settings.rho) + 1):
        pixels = generator.decode(region.codes(wanted, seed, 3 + attempt, number))
        seen, sure = judges.verdicts(pixels)
        tiles.append(pixels[sure & (seen == region.label)])
        if sum(map(len, tiles)) >= wanted:
            break
    pixels = torch.cat(tiles)[:wanted]
    correction, held_out = pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]
    return Candidate(
        region=region,
        failed=failed,
        drawn=settings.confirmations,
        correction=correction,
        held_out=held_out,
        correction_predictions=model.predict(correction),
        held_out_predictions=model.predict(held_out),
    )
