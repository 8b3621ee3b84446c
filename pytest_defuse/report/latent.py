"""What a report shows of a discovery beyond its counts: a map of latent space, and how new the errors are."""

import base64
from collections.abc import Sequence

from torch import Tensor

from pytest_defuse.classifier import Classifier
from pytest_defuse.discover.discovery import Candidate, Discovery
from pytest_defuse.discover.latent_map import latent_map
from pytest_defuse.discover.novelty import nearest_errors
from pytest_defuse.images import LabelledImages
from pytest_defuse.report.results import LatentMapResult, NoveltyResult
from pytest_defuse.scenarios.sheets import encode_sheet, pixel_hash
from pytest_defuse.subject import Subject

NOVELTY_TILES = 10
"""As many pictures of a region as in the paper's figure 6."""


def latent_map_result(discovery: Discovery, subject: Subject, seed: int) -> LatentMapResult:
    """The latent map of a discovery as plain values."""
    drawn = latent_map(discovery, seed)
    regions = [candidate.region for candidate in discovery.candidates]
    return LatentMapResult(
        labels=[subject.classes[index] for index in discovery.located.labels[drawn.images].tolist()],
        failures=len(drawn.failures),
        candidates=[f"{subject.classes[r.label]} as {subject.classes[r.prediction]}" for r in regions],
        projections={
            name: [(round(1000 * x), round(1000 * y)) for x, y in points.tolist()]
            for name, points in drawn.projections.items()
        },
    )


def novelty_results(discovery: Discovery, subject: Subject, model: Classifier) -> dict[str, NoveltyResult | None]:
    """How new each candidate's errors are, by the hash of its held-out pictures."""
    wrong = subject.train_images[discovery.located.images[~discovery.located.right]]
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
