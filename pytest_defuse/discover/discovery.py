"""Discovery: from the model under test to candidate scenarios."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pytest_defuse.discover.confirmation import TestedRegion, confirm, sheet_images
from pytest_defuse.discover.failed_draws import FailedDraws
from pytest_defuse.discover.generator import GeneratorSettings, check_generator, trained_generator
from pytest_defuse.discover.journal import Journal
from pytest_defuse.discover.judge_calibration import JudgesReport, calibrate, judges_report
from pytest_defuse.discover.judges import Judges, JudgeSettings, trained_judges
from pytest_defuse.discover.known_regions import known_as
from pytest_defuse.discover.label_evidence import label_evidence
from pytest_defuse.discover.latent_images import LatentImages, check_reconstructions, locate, sample_indices
from pytest_defuse.discover.regions import distill
from pytest_defuse.discover.search import VERSION, search_failures
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.machine import Evidence
from pytest_defuse.scenarios.room import room_for
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import Budgets
from pytest_defuse.scenarios.sheets import tile_format
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.subject import Subject

BUDGET_PER_IMAGE = 8
"""Minimum budget per training image that is searched around, so that classifying the images and their reconstructions
takes at most a quarter of the budget. Our choice."""


@dataclass(frozen=True, eq=False)
class Candidate(TestedRegion):
    """A confirmed region with the images of its two contact sheets.

    Attributes:
        correction, held_out: uint8 N x C x H x W, further draws in which the judges confidently see the label.
        correction_predictions, held_out_predictions: int64 N, the model's predictions for these images.
        evidence: the training images around the region, for the reviewer.
    """

    correction: Tensor
    held_out: Tensor
    correction_predictions: Tensor
    held_out_predictions: Tensor
    evidence: Evidence | None = None

    @property
    def failed_tiles(self) -> tuple[int, int]:
        """Number of correction tiles and of held-out tiles that the model misclassifies."""
        correction, held_out = (
            int((predictions != self.region.label).sum())
            for predictions in (self.correction_predictions, self.held_out_predictions)
        )
        return correction, held_out

    def fails_above(self, rate: float) -> bool:
        """Whether the model misclassifies more than this share of the tiles of each sheet."""
        sizes = len(self.correction), len(self.held_out)
        return all(failed > rate * tiles for failed, tiles in zip(self.failed_tiles, sizes, strict=True))


@dataclass(frozen=True, eq=False, repr=False)
class Discovery:
    """What a discovery found, and what it cost.

    Attributes:
        candidates: of the confirmed regions that are not in the store, those that cover the most training images, in
            this order.
        regions: every region that was tested on fresh draws, confirmed or not, in the same order.
        accuracy, reconstruction_accuracy: the model's, on training images and on their reconstructions, in [0, 1].
        judges: how reliable the second opinions are, on the test set.
        failures: number of draws on which the model failed and the judges were confident.
        passes: forward passes of the model, one per image: in the search, in confirmation and on the sheets.
        judge_passes: those of all judges together. Neither includes calibration and the choice of the batch size.
        generator_hash, data_hash: sha256 of the generator's weights and of the training images, in hex.
        journal: of the search; :meth:`Journal.remove` removes it when the candidates are stored.
        latent_images: the training images in latent space.
        failed_draws: the failures that the regions were distilled from.
        known: confirmed regions that the store already has, with their scenarios.
        left_out: confirmed regions beyond the maximum number of candidates, or beyond the store's budget.
        below_rate: confirmed regions whose tiles fail no more often than ``rho``.
    """

    candidates: tuple[Candidate, ...]
    regions: tuple[TestedRegion, ...]
    settings: DiscoverySettings
    seed: int
    accuracy: float
    reconstruction_accuracy: float
    judges: JudgesReport
    failures: int
    passes: int
    judge_passes: int
    generator_hash: str
    data_hash: str
    model_fingerprint: str
    journal: Journal
    latent_images: LatentImages
    failed_draws: FailedDraws
    known: tuple[tuple[TestedRegion, Scenario], ...] = ()
    left_out: tuple[TestedRegion, ...] = ()
    below_rate: tuple[TestedRegion, ...] = ()

    def __repr__(self) -> str:
        return (
            f"<discovery: {len(self.candidates)} candidates of {len(self.regions)} regions, {self.failures} failures>"
        )


def discover(
    subject: Subject,
    settings: DiscoverySettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    cache: Path,
    progress: Progress | None = None,
    starts: Tensor | None = None,
    store: Store | None = None,
) -> Discovery:
    """Find regions of latent space where the subject's model fails (Defuse, sections 3.1-3.2).

    Failures are decided by judges: reference classifiers that give a second opinion on what an image shows.

    Args:
        cache: folder of trained generators and judges, and of the journals of searches.
        starts: bool, one per training image: the images to search around, such as those that a failure mode
            describes (:func:`pytest_defuse.explain.matching_images`); default: all.
        store: where the candidates will go; regions that it has, whatever their status, are no candidates.

    Raises:
        DefuseError: data, model, generator or store cannot be used; the message says what to do.
    """
    settings = settings or DiscoverySettings()
    progress = progress or Progress()
    with seeded(seed, device):
        images = subject.train_images
        subject.check_images(images.pixels, "train")
        if len(images.labels.unique()) < 2:
            raise DefuseError("train contains images of one class only: discovery needs at least two classes.")
        room = settings.candidates if store is None else room_for(store, subject)  # before hours of work
        model = subject.classifier(device)
        outputs = {model.name: model.identity.outputs}
        model.logits(images.pixels[:2])  # refuse an unusable model before training anything
        judges, generator = _judges_and_generator(subject, settings, seed, device, cache, progress)
        report = judges_report(judges, model, subject.test_images)
        for warning in report.warnings:
            progress.say(warning)

        journal = Journal(
            cache / "searches",
            {
                "version of the search": VERSION,
                "subject": subject.name,
                "model or normalize": model.fingerprint,
                "data": images.hash,
                "generator": generator.hash,
                "panel of judges": judges.fingerprint,
                "settings": settings,
                "seed": seed,
                "kind of device": torch.device(device).type,
                "starts": starts,
            },
            outputs | {judge.name: judge.identity.outputs for judge in judges.panel},
            progress,
        )
        if message := journal.open():
            progress.say(message)
        eligible = torch.arange(len(images)) if starts is None else starts.nonzero().squeeze(1)
        if not len(eligible):
            raise DefuseError("There is no image to search around: discover(starts=...) selects none.")
        maximum = len(images) if settings.mode == "paper" else max(2, settings.budget // BUDGET_PER_IMAGE)
        indices = eligible[sample_indices(len(eligible), maximum, seed)]
        evaluator = Evaluator(model, None if settings.mode == "paper" else judges, generator).fastest(images, indices)
        latent_images = locate(evaluator, images, indices, journal, progress)
        check_reconstructions(latent_images, settings.min_reconstruction)
        result = search_failures(evaluator, latent_images, settings, seed=seed, journal=journal, progress=progress)
        regions = distill(result.failures, settings, seed, device)

        with_judges = replace(evaluator, judges=judges)
        tested, judge_passes = confirm(regions, with_judges, latent_images, settings, seed=seed, progress=progress)
        known, new = [], []
        scenarios = store.scenarios() if store else []
        for number, region in enumerate(region for region in tested if region.confirmed):
            if scenario := known_as(region.region, scenarios, subject.classes, generator.hash, settings.max_overlap):
                known.append((region, scenario))
            else:
                new.append((number, region))
        passes = result.passes + sum(region.drawn for region in tested)
        judge_passes += result.judge_passes
        candidates: list[Candidate] = []
        below_rate: list[TestedRegion] = []
        while new and len(candidates) < min(settings.candidates, room):
            number, region = new.pop(0)
            evidence = label_evidence(
                region.region, regions, result.failures, latent_images, images.labels, subject.classes
            )
            pixels, drawn = sheet_images(region.region, with_judges, settings, seed, number)
            passes, judge_passes = passes + len(pixels), judge_passes + drawn * len(judges.panel)
            candidate = _candidate(region, evidence, pixels, model)
            if candidate.fails_above(settings.rho):
                candidates.append(candidate)
            else:
                below_rate.append(region)
    return Discovery(
        candidates=tuple(candidates),
        known=tuple(known),
        left_out=tuple(region for _, region in new),
        below_rate=tuple(below_rate),
        regions=tuple(tested),
        settings=settings,
        seed=seed,
        accuracy=latent_images.accuracy,
        reconstruction_accuracy=latent_images.reconstruction_accuracy,
        judges=report,
        failures=len(result.failures),
        passes=passes,
        judge_passes=judge_passes,
        generator_hash=generator.hash,
        data_hash=images.hash,
        model_fingerprint=model.fingerprint,
        journal=journal,
        latent_images=latent_images,
        failed_draws=result.failures,
    )


def _judges_and_generator(
    subject: Subject,
    settings: DiscoverySettings,
    seed: int,
    device: torch.device | str,
    cache: Path,
    progress: Progress,
) -> tuple[Judges, ImageGenerator]:
    """The judges, calibrated on images that they were not trained on, and a generator that keeps what a judge sees."""
    training, held_out = subject.split
    if subject.judges is None:
        panel = trained_judges(
            training, len(subject.classes), JudgeSettings(), seed=seed, device=device, cache=cache, progress=progress
        )
    else:
        panel = [subject.classifier(device, judge, f"judge {n}") for n, judge in enumerate(subject.judges, start=1)]
        for judge in panel:
            judge.logits(training.pixels[:2])  # refuse an unusable judge before training anything
    judges = calibrate(panel, held_out, min_confidence=settings.confidence)
    if subject.generator is not None:
        check_generator(subject.generator, training.pixels[:2])
        return judges, subject.generator
    if settings.generator == "paper":
        architecture = GeneratorSettings.paper(len(training))
    else:
        architecture = GeneratorSettings(latent_dim=settings.latent, beta=settings.beta, steps=settings.generator_steps)
    generator = trained_generator(
        training, architecture, judge=panel[0], seed=seed, device=device, cache=cache, progress=progress
    )
    return judges, generator


def _candidate(region: TestedRegion, evidence: Evidence, pixels: Tensor, model: Classifier) -> Candidate:
    """The region with half of its images on each sheet."""
    half, budget = len(pixels) // 2, Budgets.of(tile_format(pixels.numpy())).tiles
    correction, held_out = pixels[:half][:budget], pixels[half:][:budget]
    return Candidate(
        **vars(region),
        correction=correction,
        held_out=held_out,
        correction_predictions=model.predict(correction),
        held_out_predictions=model.predict(held_out),
        evidence=evidence,
    )
