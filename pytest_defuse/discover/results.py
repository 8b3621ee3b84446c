"""The results of a discovery, as plain values, ready for JSON."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pytest_defuse.discover.discovery import Candidate, Discovery
from pytest_defuse.discover.latent_map import latent_map
from pytest_defuse.discover.nearest_errors import nearest_errors
from pytest_defuse.scenarios.differences import facts
from pytest_defuse.scenarios.sheets import encode_sheet, pixel_hash
from pytest_defuse.scenarios.store import Scenario, Stored
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages
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
        failures: number of failures on the map.
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
        failures: number of draws on which the model fails.
        regions: number of regions that were tested on fresh draws.
        new: candidates that were added to the store.
        known: ids of scenarios that were already in the store.
        seconds: duration.
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

    Args:
        model: the model under test.
        seconds: duration of the discovery.
        details: include the latent map and the nearest known errors, which only reports show.
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
    drawn = latent_map(discovery, discovery.seed)
    regions = [candidate.region for candidate in discovery.candidates]
    return LatentMapResult(
        labels=[subject.classes[index] for index in discovery.latent_images.labels[drawn.images].tolist()],
        failures=len(drawn.failures),
        candidates=[f"{subject.classes[r.label]} as {subject.classes[r.prediction]}" for r in regions],
        projections={
            name: [(round(1000 * x), round(1000 * y)) for x, y in points.tolist()]
            for name, points in drawn.projections.items()
        },
    )


def _novelties(discovery: Discovery, subject: Subject, model: Classifier) -> dict[str, NoveltyResult | None]:
    """The nearest known errors of each candidate, by the hash of its held-out images."""
    wrong = subject.train_images[discovery.latent_images.indices[~discovery.latent_images.correct]]
    predictions = model.predict(wrong.pixels)
    return {
        pixel_hash(candidate.held_out.numpy()): _novelty(candidate, wrong, predictions, subject.classes)
        for candidate in discovery.candidates
    }


def _novelty(
    candidate: Candidate, wrong: LabelledImages, predictions: Tensor, classes: Sequence[str]
) -> NoveltyResult | None:
    """The nearest errors of a candidate's failing held-out tiles; None if there is nothing to compare."""
    failing = (candidate.held_out_predictions != candidate.region.label).nonzero().squeeze(1)[:NOVELTY_TILES]
    nearest = nearest_errors(candidate.held_out[failing], wrong.pixels)
    if nearest is None or not len(failing):
        return None
    pixels = wrong.pixels[nearest.positions]
    return NoveltyResult(
        tiles=failing.tolist(),
        labels=[classes[index] for index in wrong.labels[nearest.positions].tolist()],
        predicted=[classes[index] for index in predictions[nearest.positions].tolist()],
        distances=[round(distance, 4) for distance in nearest.distances.tolist()],
        sheet=base64.b64encode(encode_sheet(pixels.numpy())).decode(),
    )
