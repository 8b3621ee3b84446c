"""The results of a discovery, as plain values, ready for JSON."""

import base64
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pytest_defuse.discover.discovery import Discovery
from pytest_defuse.discover.latent_map import latent_map
from pytest_defuse.scenarios.differences import facts
from pytest_defuse.scenarios.sheets import encode_sheet, pixel_hash
from pytest_defuse.scenarios.store import Scenario, Stored
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

NOVELTY_TILES = 10
"""Images of a region that are compared with known errors: as many as in the Defuse paper's figure 6."""


@dataclass(frozen=True)
class NoveltyResult:
    """Images of a region, each with the nearest training image that the model misclassifies.

    Attributes:
        tiles: positions of the images on the held-out sheet; the other lists are in the same order.
        labels, predicted: class names of the training images.
        distances: root mean square over pixels in [0, 1].
        sheet: the training images as one contact sheet, a PNG in base64.
    """

    tiles: list[int]
    labels: list[str]
    predicted: list[str]
    distances: list[float]
    sheet: str


@dataclass(frozen=True)
class CandidateResult:
    """A candidate scenario as it was stored.

    Attributes:
        folder: an absolute path.
        predicted: number of held-out tiles by predicted class.
        failed, drawn: the failure rate, as counts.
        facts: what a reviewer should know, one sentence each.
    """

    id: str
    folder: str
    proposed_label: str
    predicted: dict[str, int]
    failed: int
    drawn: int
    facts: list[str] = field(default_factory=list)
    novelty: NoveltyResult | None = None


@dataclass(frozen=True)
class LatentMapResult:
    """Training images, failures and candidates in two dimensions.

    Attributes:
        labels: class names of the training images on the map.
        candidates: the error of each region on the map, such as ``2 as 3``.
        projections: by name of the method, the points of the training images, the failures and the regions'
            means, in this order, in thousandths of the map's larger side.
    """

    labels: list[str]
    failures: int
    candidates: list[str]
    projections: dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class DiscoveryResult:
    """The outcome of a discovery.

    Attributes:
        accuracy, reconstruction_accuracy: the model's, on training images and on their reconstructions, in [0, 1].
        judge_accuracies: on the test set, of each reference classifier that gives a second opinion (judge).
        failures, regions: number of draws on which the model fails, and of regions that were tested on fresh draws.
        new, known: candidates that were added to the store, and ids of scenarios that were already in it.
        active_dimensions, latent_dim: number of latent dimensions that the generator uses, and has; 0 if unknown.
    """

    subject: str
    accuracy: float
    reconstruction_accuracy: float
    judge_accuracies: list[float]
    failures: int
    regions: int
    new: list[CandidateResult]
    known: list[str]
    seconds: float
    latent_map: LatentMapResult | None = None
    active_dimensions: int = 0
    latent_dim: int = 0


def discovery_result(
    discovery: Discovery, stored: Stored, subject: Subject, model: Classifier, *, seconds: float, details: bool
) -> DiscoveryResult:
    """The result of a discovery whose candidates were stored.

    ``details`` includes the latent map and the nearest known errors, which only reports show.
    """
    novelties = _novelties(discovery, subject, model) if details else {}
    return DiscoveryResult(
        subject=subject.name,
        accuracy=discovery.accuracy,
        reconstruction_accuracy=discovery.reconstruction_accuracy,
        judge_accuracies=list(discovery.judges.accuracies),
        failures=discovery.failures,
        regions=len(discovery.regions),
        new=[candidate_result(new, novelties.get(new.record.sheets.held_out.sha256)) for new in stored.new],
        known=[scenario.id for scenario in stored.known],
        seconds=seconds,
        latent_map=_latent_map(discovery, subject) if details else None,
        active_dimensions=discovery.latent_images.active_dimensions,
        latent_dim=discovery.latent_images.latent_dim,
    )


def candidate_result(scenario: Scenario, novelty: NoveltyResult | None = None) -> CandidateResult:
    """The values of a stored candidate."""
    record, rate = scenario.record, scenario.record.failure_rate
    assert rate is not None, "every method that finds candidates measures it"
    return CandidateResult(
        id=scenario.id,
        folder=str(scenario.folder),
        proposed_label=str(record.proposed_label),
        predicted=scenario.counts("held_out"),
        failed=rate.failed,
        drawn=rate.drawn,
        facts=facts(record, scenario.machine),
        novelty=novelty,
    )


def _latent_map(discovery: Discovery, subject: Subject) -> LatentMapResult:
    images, failures, projections = latent_map(discovery, discovery.seed)
    regions = [candidate.region for candidate in discovery.candidates]
    return LatentMapResult(
        labels=[subject.classes[index] for index in discovery.latent_images.labels[images].tolist()],
        failures=len(failures),
        candidates=[f"{subject.classes[r.label]} as {subject.classes[r.prediction]}" for r in regions],
        projections={
            name: [(round(1000 * x), round(1000 * y)) for x, y in points.tolist()]
            for name, points in projections.items()
        },
    )


def _novelties(discovery: Discovery, subject: Subject, model: Classifier) -> dict[str, NoveltyResult]:
    """The nearest known errors of each candidate's failing held-out tiles, by the hash of its held-out images."""
    wrong = subject.train_images[discovery.latent_images.indices[~discovery.latent_images.correct]]
    predictions = model.predict(wrong.pixels)
    novelties = {}
    for candidate in discovery.candidates:
        failing = (candidate.held_out_predictions != candidate.region.label).nonzero().squeeze(1)[:NOVELTY_TILES]
        if len(wrong) and len(failing):
            distances, positions = nearest_errors(candidate.held_out[failing], wrong.pixels)
            novelties[pixel_hash(candidate.held_out.numpy())] = NoveltyResult(
                tiles=failing.tolist(),
                labels=[subject.classes[index] for index in wrong.labels[positions].tolist()],
                predicted=[subject.classes[index] for index in predictions[positions].tolist()],
                distances=[round(distance, 4) for distance in distances.tolist()],
                sheet=base64.b64encode(encode_sheet(wrong.pixels[positions].numpy())).decode(),
            )
    return novelties


def nearest_errors(images: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """How far images are from known errors, by L2 distance between pixels (Defuse, section 4.3).

    Args:
        images: uint8 n x C x H x W.
        errors: uint8 m x C x H x W, at least one image that the model gets wrong.

    Returns:
        Root mean square difference from the nearest error over pixels in [0, 1], float32 n, and its position, int64 n.
    """
    queries, others = images.flatten(1).float() / 255, errors.flatten(1).float() / 255
    distances, positions = torch.cdist(queries, others).min(dim=1)
    return distances / queries.shape[1] ** 0.5, positions
