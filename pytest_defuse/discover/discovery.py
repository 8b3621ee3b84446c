"""Discovery: from the model under test to candidate scenarios."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pytest_defuse.discover.confirmation import TestedRegion, pictures, tested
from pytest_defuse.discover.evaluator import Evaluator
from pytest_defuse.discover.failed_draws import Failures
from pytest_defuse.discover.generator import GeneratorSettings, trained_generator
from pytest_defuse.discover.generator_report import GeneratorReport, check_generator, generator_report
from pytest_defuse.discover.journal import Journal
from pytest_defuse.discover.judge_calibration import JudgesReport, calibrated, judges_report, split_off
from pytest_defuse.discover.judges import Judges, JudgeSettings, trained_judges
from pytest_defuse.discover.label_evidence import Evidence, evidence_for
from pytest_defuse.discover.latent_images import LatentImages, check_reconstructions, locate, sample
from pytest_defuse.discover.regions import distill
from pytest_defuse.discover.search import VERSION, identify
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject


@dataclass(frozen=True, eq=False)
class Candidate(TestedRegion):
    """A confirmed region with the pictures of its two sheets.

    Attributes:
        correction, held_out: uint8 N x C x H x W, further draws on which the judges surely see the label.
        correction_predictions, held_out_predictions: int64 N, what the model says of them.
        evidence: the training images that the region lies among, for the reviewer.
    """

    correction: Tensor
    held_out: Tensor
    correction_predictions: Tensor
    held_out_predictions: Tensor
    evidence: Evidence | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Discovery:
    """What was found, and what it cost.

    Attributes:
        candidates: of the confirmed regions, those that cover most images, in that order.
        regions: every region that was tested on fresh draws, confirmed or not, in the same order.
        settings, seed: what it was asked for.
        accuracy, reconstruction_accuracy: of the model, on training images and their reconstructions.
        judges: how far the second opinions can be trusted, on the test set.
        generator: what it keeps of training and test images.
        failures: draws on which the model failed, the judges being sure.
        passes: forward passes of the model in the search, confirmations included.
        generator_hash, model_hash, data_hash: sha256 of the weights and of the training images.
        located: the training images in latent space.
        found: the failures that were distilled.
    """

    candidates: tuple[Candidate, ...]
    regions: tuple[TestedRegion, ...]
    settings: DiscoverySettings
    seed: int
    accuracy: float
    reconstruction_accuracy: float
    judges: JudgesReport
    generator: GeneratorReport
    failures: int
    passes: int
    generator_hash: str
    model_hash: str
    data_hash: str
    located: LatentImages
    found: Failures

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
) -> Discovery:
    """Find regions of latent space on which the subject's model surely fails (Defuse, sections 3.1-3.2).

    Args:
        cache: the folder in which trained generators and judges are kept, and the journals of searches.
        starts: bool, one a training image: the images to search around, such as those that meet the rule of
            a failure mode (:func:`pytest_defuse.explain.matching_images`); default: all.

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
        judges, generator = _second_sight(subject, settings, seed, device, cache, progress)
        trust = judges_report(judges, model, subject.test_images)
        for warning in trust.warnings:
            progress.say(warning)

        journal = Journal(
            cache / "searches",
            {
                "version of the search": VERSION,
                "subject": subject.name,
                "model": model.hash,
                "data": images.hash,
                "generator": generator.hash,
                "panel of judges": judges.hash,
                "settings": repr(settings),
                "seed": str(seed),
                "kind of device": torch.device(device).type,
                "starts": "all" if starts is None else fingerprint("starts", images=starts),
            },
            progress,
        )
        if news := journal.opened():
            progress.say(news)
        evaluator = Evaluator(model, None if settings.mode == "paper" else judges, generator)
        around = torch.arange(len(images)) if starts is None else starts.nonzero().squeeze(1)
        if not len(around):
            raise DefuseError("There is no image to search around: discover(starts=...) chooses none.")
        chosen = around[sample(len(around), _affordable(images, settings), seed)]
        located = locate(evaluator, images, chosen, journal, progress)
        check_reconstructions(located, settings.worst_reconstruction)
        found = identify(evaluator, located, settings, seed=seed, journal=journal, progress=progress)
        regions = distill(found.failures, settings, seed, device)

        judged = Evaluator(model, judges, generator, evaluator.compute)
        results = tested(regions, judged, located, settings, seed=seed, progress=progress)
        confirmed = [result for result in results if result.confirmed][: settings.candidates]
        candidates = tuple(
            _candidate(
                result,
                judged,
                settings,
                seed,
                number,
                evidence_for(result.region, regions, found.failures, located, images),
            )
            for number, result in enumerate(confirmed)
        )
        uninvolved = judges.panel[-1] if len(judges.panel) > 1 else None
    return Discovery(
        candidates=candidates,
        regions=tuple(results),
        settings=settings,
        seed=seed,
        accuracy=located.accuracy,
        reconstruction_accuracy=located.reconstruction_accuracy,
        judges=trust,
        generator=generator_report(generator, model, images, subject.test_images, judge=uninvolved),
        failures=len(found.failures),
        passes=found.passes,
        generator_hash=generator.hash,
        model_hash=model.hash,
        data_hash=images.hash,
        located=located,
        found=found.failures,
    )


def _second_sight(
    subject: Subject,
    settings: DiscoverySettings,
    seed: int,
    device: torch.device | str,
    cache: Path,
    progress: Progress,
) -> tuple[Judges, ImageGenerator]:
    """The judges, calibrated on images that they were not trained on, and a generator that keeps what one sees."""
    training, held_out = subject.train_images, subject.validation_images
    if held_out is None:
        training, held_out = split_off(training, seed)
    count = len(subject.classes)
    if subject.judges is None:
        panel = trained_judges(
            training, count, JudgeSettings(), seed=seed, device=device, cache=cache, progress=progress
        )
    else:
        panel = [
            Classifier(
                judge, count, normalize=subject.normalize, device=device, name=f"judge {n} of subject {subject.name!r}"
            )
            for n, judge in enumerate(subject.judges, start=1)
        ]
        for judge in panel:
            judge.logits(training.pixels[:2])  # refused, like the model, before anything is trained
    judges = calibrated(panel, held_out, least=settings.confidence)
    if subject.generator is not None:
        check_generator(subject.generator, training.pixels[:2])
        return judges, subject.generator
    generator = trained_generator(
        training,
        _generator_settings(settings, training),
        judge=panel[0],
        seed=seed,
        device=device,
        cache=cache,
        progress=progress,
    )
    return judges, generator


def _generator_settings(settings: DiscoverySettings, training: LabelledImages) -> GeneratorSettings:
    if settings.generator == "paper":
        return GeneratorSettings.paper(len(training))
    return GeneratorSettings(latent=settings.latent, beta=settings.beta, steps=settings.generator_steps)


def _affordable(images: LabelledImages, settings: DiscoverySettings) -> int:
    """Reading reconstructions costs forward passes too: at most an eighth of the budget goes into it."""
    return len(images) if settings.mode == "paper" else max(2, settings.budget // 8)


def _candidate(
    result: TestedRegion,
    evaluator: Evaluator,
    settings: DiscoverySettings,
    seed: int,
    number: int,
    evidence: Evidence,
) -> Candidate:
    tiles = pictures(result.region, evaluator, settings, seed, number)
    correction, held_out = tiles[: len(tiles) // 2], tiles[len(tiles) // 2 :]
    return Candidate(
        **vars(result),
        correction=correction,
        held_out=held_out,
        correction_predictions=evaluator.model.predict(correction),
        held_out_predictions=evaluator.model.predict(held_out),
        evidence=evidence,
    )
