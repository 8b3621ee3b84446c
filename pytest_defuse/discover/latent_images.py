"""The training images in latent space, and how well the generator reconstructs them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.journal import Journal, Piece
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.runtime.determinism import Stream, random_numbers
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.statistics.accuracy import balanced_accuracy
from pytest_defuse.subject.images import LabelledImages

RADIUS_QUANTILE = 0.999
"""Draws are limited to this quantile of the training codes' distances from the centre. Our choice: nearly all training
codes, without the few outliers."""
MIN_ACTIVE_VARIANCE = 0.01
"""A latent dimension is active if the variance of its means is above this (Burda et al. 2016, section 5.1)."""
MIN_STD = 1e-6
"""Minimum standard deviation of a dimension, so that one in which all codes are equal can be divided by. Our choice."""


@dataclass(frozen=True, eq=False)
class LatentImages:
    """N training images in d-dimensional latent space.

    Attributes:
        indices: int64 N, indices in the training set.
        labels: int64 N, class indices.
        means: float32 N x d, the means of q(z|x).
        logit_margins: float32 N, the model's logit of the label minus its largest other logit, on the reconstruction.
        correct: bool N, whether the model is correct on the image itself.
        centre, std: float32 d, mean and standard deviation of ``means``.
        radius: float32 scalar, maximum distance of draws from ``centre``, in units of ``std``.
    """

    indices: Tensor
    labels: Tensor
    means: Tensor
    logit_margins: Tensor
    correct: Tensor
    centre: Tensor
    std: Tensor
    radius: Tensor

    @property
    def accuracy(self) -> float:
        """The model's accuracy on the images, in [0, 1]."""
        return self.correct.double().mean().item()

    @property
    def reconstruction_accuracy(self) -> float:
        """The model's accuracy on the reconstructions, in [0, 1]."""
        return (self.logit_margins > 0).double().mean().item()

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions d."""
        return self.means.shape[1]

    @property
    def active_dimensions(self) -> int:
        """Number of latent dimensions that the generator uses (see ``MIN_ACTIVE_VARIANCE``)."""
        return int((self.means.var(dim=0, correction=0) > MIN_ACTIVE_VARIANCE).sum())

    def within_radius(self, codes: Tensor) -> Tensor:
        """Codes, float32 n x d, moved towards the centre where they are farther away than ``radius``.

        This bounds the likelihood of a code from below, under a Gaussian with the moments of the training codes.
        """
        offsets = (codes - self.centre) / self.std
        scale = (self.radius / offsets.norm(dim=1, keepdim=True)).clamp(max=1)
        return torch.where(scale < 1, self.centre + offsets * scale * self.std, codes)


def sample_indices(count: int, maximum: int, seed: int) -> Tensor:
    """Ascending indices, int64, of at most ``maximum`` of ``count`` images: all, or a seeded random sample."""
    if count <= maximum:
        return torch.arange(count)
    return torch.from_numpy(random_numbers(seed, Stream.SEARCHED_IMAGES).permutation(count)[:maximum]).sort().values


def locate(
    evaluator: Evaluator, images: LabelledImages, indices: Tensor, journal: Journal, progress: Progress
) -> LatentImages:
    """Encode the images at ``indices`` (int64) and evaluate the model on them and on their reconstructions."""

    def classify() -> Piece:
        batches: list[Piece] = []
        with progress.task("classifying reconstructions", len(indices)) as advance:
            for batch in evaluator.compute.batches(indices):
                batches.append(_classified(evaluator, images.pixels[batch], images.labels[batch]))
                advance(len(batch))
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

    piece = journal.once("latent-images", classify)
    centre, std = piece["means"].mean(dim=0), piece["means"].std(dim=0).clamp(min=MIN_STD)
    distances = ((piece["means"] - centre) / std).norm(dim=1)
    # torch.quantile takes at most 16 million values.
    radius = torch.tensor(np.quantile(distances.numpy(), RADIUS_QUANTILE), dtype=torch.float32)
    return LatentImages(indices=indices, labels=images.labels[indices], centre=centre, std=std, radius=radius, **piece)


def _classified(evaluator: Evaluator, pixels: Tensor, labels: Tensor) -> Piece:
    codes = evaluator.generator.encode(pixels)[0].cpu()
    logits = evaluator.logits(codes)
    label_logits = logits.gather(1, labels[:, None]).squeeze(1)
    margins = label_logits - logits.scatter(1, labels[:, None], -torch.inf).max(dim=1).values
    return {"means": codes, "logit_margins": margins, "correct": evaluator.model.predict(pixels) == labels}


def check_reconstructions(images: LatentImages, min_ratio: float) -> None:
    """Refuse a generator whose reconstructions the model cannot classify: failures of draws would be the generator's.

    Accuracies are averaged over the classes: on an imbalanced set, a generator that decodes every image to the most
    common class must not pass.

    Raises:
        DefuseError: the accuracy on reconstructions is 0, or below ``min_ratio`` times that on the images.
    """
    labels = images.labels.tolist()
    accuracy = balanced_accuracy(images.correct.tolist(), labels)
    rebuilt = balanced_accuracy((images.logit_margins > 0).tolist(), labels)
    if rebuilt < min_ratio * accuracy:
        raise DefuseError(
            f"The generator does not reconstruct the images well enough: averaged over the classes, the model is "
            f"correct on {accuracy:.1%} of the training images but on {rebuilt:.1%} of their reconstructions "
            f"(required: {min_ratio * accuracy:.1%}), so failures would be the generator's. Train it longer or with "
            "more latent dimensions: @pytest.mark.defuse_discover(generator_steps=..., latent=...)."
        )
    if not rebuilt:
        raise DefuseError(
            "The model is wrong on every reconstructed training image: check its checkpoint, Subject(normalize=...) "
            "and the order of Subject(classes=...)."
        )
