"""The results of a discovery, as plain values, ready for JSON."""

from dataclasses import dataclass, field


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
        facts: for the reviewer, one sentence each.
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
        confirmed: number of these regions that fail significantly more often than required; 0 if unknown.
        new, known: candidates that were added to the store, and ids of scenarios that were already in it.
        left_out: confirmed regions that were not written, and why, one sentence each.
        passes, judge_passes: forward passes, one per image, of the model and of all judges; 0 if unknown.
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
    confirmed: int = 0
    passes: int = 0
    judge_passes: int = 0
    left_out: list[str] = field(default_factory=list)
