"""The training images in latent space, and what the generator makes of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.evaluator import CPU_BATCHES, Evaluator
from pytest_defuse.discover.journal import Journal, Piece
from pytest_defuse.runtime.determinism import random_numbers
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.images import LabelledImages

ON_MANIFOLD = 0.999
"""Draws stay as near to the middle of the codes as this share of the images does."""


@dataclass(frozen=True, eq=False)
class LatentImages:
    """Training images in latent space, and how well the generator rebuilds them.

    Attributes:
        images: int64 N, their indices in the training set.
        labels: int64 N, their classes.
        means: float32 N x d, the means of q(z|x).
        margin: float32 N, the model's logit of the label less its largest other logit, at the reconstruction.
        right: bool N, whether the model is right on the image itself.
        centre, spread: float32 d, mean and standard deviation of ``means``.
        reach: the largest distance from ``centre``, in units of ``spread``, at which images still lie.
    """

    images: Tensor
    labels: Tensor
    means: Tensor
    margin: Tensor
    right: Tensor
    centre: Tensor
    spread: Tensor
    reach: Tensor

    @property
    def accuracy(self) -> float:
        """The model's accuracy on the images."""
        return self.right.double().mean().item()

    @property
    def reconstruction_accuracy(self) -> float:
        """The model's accuracy on their reconstructions."""
        return (self.margin > 0).double().mean().item()

    def on_manifold(self, codes: Tensor) -> Tensor:
        """Codes, float32 n x d, drawn back towards the centre where they lie beyond ``reach``.

        The likelihood of a code under a Gaussian with the images' moments is thereby bounded from below.
        """
        offsets = (codes - self.centre) / self.spread
        shrink = (self.reach / offsets.norm(dim=1, keepdim=True)).clamp(max=1)
        return torch.where(shrink < 1, self.centre + offsets * shrink * self.spread, codes)


def sample(count: int, most: int, seed: int) -> Tensor:
    """Indices of at most ``most`` of ``count`` images, int64, ascending: all of them, or a seeded choice."""
    if count <= most:
        return torch.arange(count)
    return torch.from_numpy(random_numbers(seed, 9).permutation(count)[:most]).sort().values


def locate(
    evaluator: Evaluator, images: LabelledImages, chosen: Tensor, journal: Journal, progress: Progress
) -> LatentImages:
    """Encode the images ``chosen`` (int64 indices) and ask the model about them and about their reconstructions.

    From then on the evaluator screens in the way that is fastest for these images.
    """
    few = chosen[: CPU_BATCHES[-1]]
    codes = evaluator.generator.encode(images.pixels[few])[0].cpu()
    if not codes.isfinite().all():
        raise DefuseError("The generator encodes images as NaN or infinite codes: train it anew.")
    evaluator.use(evaluator.fastest(codes, images.labels[few]))

    def read() -> Piece:
        parts: list[Piece] = []
        with progress.task("reading reconstructions", len(chosen)) as advance:
            for some in chosen.split(evaluator.compute.batch):
                parts.append(_read(evaluator, images.pixels[some], images.labels[some]))
                advance(len(some))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    located = journal.once("located", read)
    # A dimension that the encoder does not use has no spread; draws leave it where it is.
    centre, spread = located["means"].mean(dim=0), located["means"].std(dim=0).clamp(min=1e-6)
    distances = ((located["means"] - centre) / spread).norm(dim=1)
    # torch.quantile takes no more than 16 million values.
    reach = torch.tensor(np.quantile(distances.numpy(), ON_MANIFOLD), dtype=torch.float32)
    return LatentImages(
        images=chosen, labels=images.labels[chosen], centre=centre, spread=spread, reach=reach, **located
    )


def _read(evaluator: Evaluator, pixels: Tensor, labels: Tensor) -> Piece:
    codes = evaluator.generator.encode(pixels)[0].cpu()
    logits = evaluator.logits(codes)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    margin = own - logits.scatter(1, labels[:, None], -torch.inf).max(dim=1).values
    return {"means": codes, "margin": margin, "right": evaluator.model.predict(pixels) == labels}


def check_reconstructions(located: LatentImages, worst: float) -> None:
    """Refuse a generator whose reconstructions the model cannot read.

    Every class counts alike: a generator that paints all images as the commonest class passes no check on
    an imbalanced set.

    Raises:
        DefuseError: accuracy on reconstructions is below ``worst`` times the accuracy on images; draws
            would then "fail" because of the generator alone.
    """
    accuracy, rebuilt = (_class_mean(right, located.labels) for right in (located.right, located.margin > 0))
    if rebuilt < worst * accuracy:
        raise DefuseError(
            f"The generator cannot rebuild the images: averaged over the classes, the model is right on {accuracy:.1%} "
            f"of the training images but on {rebuilt:.1%} of their reconstructions (at least {worst * accuracy:.1%} is "
            "needed), so its failures would be the generator's: train the generator longer or with more latent "
            "dimensions: @pytest.mark.defuse_discover(generator_steps=..., latent=...)."
        )
    if not rebuilt:
        raise DefuseError(
            "The model is wrong on every reconstructed training image: check its checkpoint, Subject(normalize=...) "
            "and the order of Subject(classes=...)."
        )


def _class_mean(right: Tensor, labels: Tensor) -> float:
    """The mean over the classes of the share that is right."""
    return float(np.mean([right[labels == label].double().mean().item() for label in labels.unique()]))
