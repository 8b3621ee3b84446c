"""Identification: latent codes near training images whose decoded image the model gets wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.classifier import Classifier
from pytest_defuse.determinism import random_numbers
from pytest_defuse.discover.generator import Generator
from pytest_defuse.discover.judges import Judges
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.errors import DefuseError
from pytest_defuse.images import LabelledImages
from pytest_defuse.progress import Progress

CHUNK = 1024
"""Latent codes decoded at once: bounds memory, changes nothing else."""


@dataclass(frozen=True, eq=False)
class LatentImages:
    """The training images in latent space, and how well the generator rebuilds them.

    Attributes:
        means: float32 N x d, the means of q(z|x).
        spread: float32 d, the standard deviation of ``means`` over the images.
        margin: float32 N, the model's logit of the label less its largest other logit, at the reconstruction.
        accuracy: the model's accuracy on the images.
        reconstruction_accuracy: the model's accuracy on their reconstructions.
    """

    means: Tensor
    spread: Tensor
    margin: Tensor
    accuracy: float
    reconstruction_accuracy: float


@dataclass(frozen=True, eq=False)
class Failures:
    """Draws on which the judges are sure and differ from the model.

    Attributes:
        codes: float32 n x d.
        labels: int64 n, what the judges see.
        predictions: int64 n, what the model says.
        images: int64 n, index of the training image that the draw started from.
        draws: int64 n, number of the draw at that image.
    """

    codes: Tensor
    labels: Tensor
    predictions: Tensor
    images: Tensor
    draws: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, chosen: Tensor) -> "Failures":
        return Failures(*(part[chosen] for part in vars(self).values()))

    def capped(self, most: int) -> "Failures":
        """At most ``most`` failures of each image, those that come first."""
        order = self.images.argsort(stable=True)
        _, counts = self.images[order].unique_consecutive(return_counts=True)
        starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
        earlier = torch.empty_like(order)
        earlier[order] = torch.arange(len(order)) - starts
        return self[earlier < most]

    @staticmethod
    def joined(parts: "list[Failures]") -> "Failures":
        """All parts as one."""
        return Failures(*(torch.cat(columns) for columns in zip(*(vars(p).values() for p in parts), strict=True)))


def locate(
    classifier: Classifier, generator: Generator, images: LabelledImages, worst_reconstruction: float
) -> LatentImages:
    """Encode the images and check that the model can still read their reconstructions.

    Raises:
        DefuseError: accuracy on reconstructions is below ``worst_reconstruction`` times the accuracy on
            images; draws would then "fail" because of the generator alone.
    """
    means, _ = generator.encode(images.pixels)
    logits = torch.cat([classifier.logits(generator.decode(chunk)) for chunk in means.split(CHUNK)])
    own = logits.gather(1, images.labels[:, None]).squeeze(1)
    others = logits.scatter(1, images.labels[:, None], -torch.inf).max(dim=1).values
    accuracy = (classifier.predict(images.pixels) == images.labels).double().mean().item()
    rebuilt = (own > others).double().mean().item()
    if rebuilt < worst_reconstruction * accuracy:
        raise DefuseError(
            f"The generator cannot rebuild the images: the model is right on {accuracy:.1%} of the training images "
            f"but on {rebuilt:.1%} of their reconstructions (at least {worst_reconstruction * accuracy:.1%} is "
            "needed), so its failures would be the generator's: train the generator longer or with more latent "
            "dimensions: @pytest.mark.defuse_discover(generator_steps=..., latent=...)."
        )
    if not rebuilt:
        raise DefuseError(
            "The model is wrong on every reconstructed training image: check its checkpoint, Subject(normalize=...) "
            "and the order of Subject(classes=...)."
        )
    return LatentImages(means, means.std(dim=0), own - others, accuracy, rebuilt)


def identify(
    classifier: Classifier,
    judges: Judges,
    generator: Generator,
    located: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    progress: Progress,
    starts: Tensor | None = None,
) -> Failures:
    """Search near the images where the model's margin is small, then again around what failed.

    First round: ``draws`` draws z = mean + noise * spread * e, e ~ N(0, I), at each of the
    ``budget // draws`` images with the smallest positive margin (an image whose reconstruction is
    misread says nothing about the model). Second round: ``neighbours`` draws around each failure of
    the first, with ``neighbour_noise``. Each round keeps at most ``cap`` failures of an image.

    e belongs to (seed, round, image, draw) alone, so neither batch size nor order changes a draw's
    code; codes are bit-exact, decoded pixels equal up to float rounding before they become uint8.

    Args:
        starts: bool N, the images that the first round may draw around; default: all.

    Raises:
        DefuseError: none of them is read right in its reconstruction.
    """
    readable = located.margin > 0 if starts is None else (located.margin > 0) & starts
    rebuilt = readable.nonzero().squeeze(1)
    if not len(rebuilt):
        raise DefuseError(
            "The model is wrong on the reconstruction of every image that the search may start from: "
            "choose other images as starts."
        )
    order = located.margin[rebuilt].argsort(stable=True)
    chosen = rebuilt[order[: max(1, settings.budget // settings.draws)]]

    def search(origins: Tensor, streams: Sequence[tuple[int, ...]], draws: int, noise: float, title: str) -> Failures:
        found = []
        per_chunk = max(1, CHUNK // draws)
        with progress.task(title, len(origins) * draws) as advance:
            for start in range(0, len(origins), per_chunk):
                some = streams[start : start + per_chunk]
                e = np.stack([random_numbers(seed, *s).standard_normal((draws, origins.shape[1])) for s in some])
                codes = origins[start : start + per_chunk, None] + noise * located.spread * torch.from_numpy(e)
                codes = codes.flatten(0, 1).float()
                pixels = generator.decode(codes)
                predictions = classifier.predict(pixels)
                labels, failed = judges.contradict(pixels, predictions)
                images = torch.tensor([s[1] for s in some]).repeat_interleave(draws)
                numbers = torch.arange(draws).repeat(len(some))
                found.append(Failures(codes, labels, predictions, images, numbers)[failed])
                advance(len(codes), f"{sum(map(len, found)):,} failures")
        return Failures.joined(found).capped(settings.cap)

    first = search(
        located.means[chosen],
        [(0, int(image)) for image in chosen],
        settings.draws,
        settings.noise,
        "searching for failures",
    )
    if not len(first):
        return first
    around = [(1, int(image), int(draw)) for image, draw in zip(first.images, first.draws, strict=True)]
    second = search(first.codes, around, settings.neighbours, settings.neighbour_noise, "searching around the failures")
    return Failures.joined([first, second])
