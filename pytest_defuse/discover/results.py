"""What a discovery found, as plain values, ready for JSON."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pytest_defuse.discover.discovery import Candidate, Discovery
from pytest_defuse.discover.latent_map import latent_map
from pytest_defuse.discover.nearest_errors import nearest_errors
from pytest_defuse.scenarios.differences import facts
from pytest_defuse.scenarios.sheets import encode_sheet, pixel_hash
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject

NOVELTY_TILES = 10
"""As many pictures of a region as in the paper's figure 6."""


@dataclass(frozen=True)
class NoveltyResult:
    """Pictures of a region, each with the nearest training image that the model gets wrong.

    Attributes:
        tiles: which held-out tiles; the other lists go with them.
        labels, predicted: class names of the training images.
        distances: root mean square over pixels in [0, 1].
        sheet: the training images as one contact sheet, a PNG in base64.
        width, height: of a tile, in pixels.
    """

    tiles: list[int]
    labels: list[str]
    predicted: list[str]
    distances: list[float]
    sheet: str
    width: int
    height: int


@dataclass(frozen=True)
class CandidateResult:
    """A candidate scenario as it was stored.

    Attributes:
        predicted: counts what the model says of the held-out tiles.
        facts: what a reviewer should know, a sentence each.
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
    """Training images, failures and candidates in the plane.

    Attributes:
        labels: class names of the training images that are shown.
        failures: how many failures are shown.
        candidates: the errors whose regions are shown, such as ``2 as 3``.
        projections: by name of the method, points of the training images, the failures and the regions'
            means, in this order, in thousandths of the map's larger side.
    """

    labels: list[str]
    failures: int
    candidates: list[str]
    projections: dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class DiscoveryResult:
    """What a discovery found: candidates that are new to the store, and ids that it knew already."""

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


def candidate_result(scenario: Scenario, novelty: NoveltyResult | None = None) -> CandidateResult:
    """A stored candidate as plain values."""
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


def latent_map_result(discovery: Discovery, subject: Subject, seed: int) -> LatentMapResult:
    """The latent map of a discovery as plain values."""
    drawn = latent_map(discovery, seed)
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


def novelty_results(discovery: Discovery, subject: Subject, model: Classifier) -> dict[str, NoveltyResult | None]:
    """How new each candidate's errors are, by the hash of its held-out pictures."""
    wrong = subject.train_images[discovery.latent_images.indices[~discovery.latent_images.correct]]
    predictions = model.predict(wrong.pixels)
    return {
        pixel_hash(candidate.held_out.numpy()): _novelty(candidate, wrong, predictions, subject.classes)
        for candidate in discovery.candidates
    }


def _novelty(
    candidate: Candidate, wrong: LabelledImages, predictions: Tensor, classes: Sequence[str]
) -> NoveltyResult | None:
    """Failing held-out tiles of a candidate with their nearest errors; None where there is nothing to compare."""
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
        width=pixels.shape[3],
        height=pixels.shape[2],
    )
