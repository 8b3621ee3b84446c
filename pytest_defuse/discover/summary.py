"""The results of a discovery, from what it found and stored."""

import base64

import torch
from torch import Tensor

from pytest_defuse.discover.discovery import Discovery
from pytest_defuse.discover.latent_map import latent_map
from pytest_defuse.discover.results import CandidateResult, DiscoveryResult, LatentMapResult, NoveltyResult
from pytest_defuse.scenarios.differences import facts
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.sheets import encode_sheet, pixel_hash
from pytest_defuse.scenarios.store import Stored
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject

NOVELTY_TILES = 10
"""Images of a region that are compared with known errors: as many as in the Defuse paper's figure 6."""


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
        confirmed=sum(region.confirmed for region in discovery.regions),
        left_out=list(stored.left_out),
        passes=discovery.passes,
        judge_passes=discovery.judge_passes,
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
    """The distance of images from known errors, by L2 distance between pixels (Defuse, section 4.3).

    Args:
        images: uint8 n x C x H x W.
        errors: uint8 m x C x H x W, at least one image that the model gets wrong.

    Returns:
        Root mean square difference from the nearest error over pixels in [0, 1], float32 n, and its position, int64 n.
    """
    queries, others = images.flatten(1).float() / 255, errors.flatten(1).float() / 255
    distances, positions = torch.cdist(queries, others).min(dim=1)
    return distances / queries.shape[1] ** 0.5, positions
