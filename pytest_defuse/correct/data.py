"""The images on which every trial of a correction is trained and scored: no test images, no held-out tiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.shifts import shifted_copies
from pytest_defuse.gate.predictions import checked_tiles
from pytest_defuse.runtime.determinism import Stream, random_numbers
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import Split
from pytest_defuse.subject.images import LabelledImages, found_in
from pytest_defuse.subject.subject import Subject

SHIFTED_IMAGES = 1000
"""Validation images that are shifted; every trial is scored on five copies of each. Our choice."""


@dataclass(frozen=True, eq=False)
class CorrectionData:
    """The images of one correction: ``train`` and ``validation`` are disjoint.

    Attributes:
        shifted: shifted copies of validation images, by the name of the shift.
        tiles: the *correction* tiles of each scenario with its label, by id.
        validation_source: the origin of the validation images, in words.
    """

    train: LabelledImages
    validation: LabelledImages
    shifted: dict[str, LabelledImages]
    tiles: dict[str, LabelledImages]
    validation_source: str

    @property
    def hash(self) -> str:
        """sha256 over all images and labels, in hex."""
        tiles = {name: images.hash for name, images in self.tiles.items()}
        return fingerprint("correction data", train=self.train.hash, validation=self.validation.hash, tiles=tiles)


def correction_data(subject: Subject, scenarios: Sequence[Scenario], settings: CorrectionSettings) -> CorrectionData:
    """Read the images of a correction.

    Raises:
        DefuseError: images cannot be read, or tiles do not fit the subject.
    """
    tiles = {scenario.id: labelled_tiles(scenario, subject, "correction") for scenario in scenarios}
    train, validation = subject.split
    trained_on = (tile for images in tiles.values() for tile in images.pixels)
    validation = validation[~found_in(validation.pixels, trained_on)]
    if not len(validation):
        raise DefuseError(
            "Every validation image is also a correction tile: give other Subject(validation=...) images."
        )
    own = "the subject's validation set"
    source = own if subject.validation is not None else "a tenth of the training set, not used for finetuning"
    return CorrectionData(
        train,
        validation,
        shifted_copies(stratified_sample(validation, SHIFTED_IMAGES)) if settings.search == "halving" else {},
        tiles,
        source,
    )


def stratified_sample(images: LabelledImages, count: int) -> LabelledImages:
    """At most ``count`` random images, with each class's share as in ``images``; all of them, if they are no more."""
    if len(images) <= count:
        return images
    order = torch.from_numpy(random_numbers(0, Stream.SHIFTED_SAMPLE).permutation(len(images)))
    rank = torch.empty(len(images), dtype=torch.float64)  # of an image within its class, in (0, 1)
    for label in images.labels.unique():
        positions = order[images.labels[order] == label]
        rank[positions] = (torch.arange(len(positions), dtype=torch.float64) + 0.5) / len(positions)
    return images[order[rank[order].argsort(stable=True)[:count]].sort().values]


def labelled_tiles(scenario: Scenario, subject: Subject, split: Split) -> LabelledImages:
    """The tiles of a split that are not excluded, with their labels.

    Raises:
        DefuseError: the scenario does not fit the subject; see :func:`~pytest_defuse.gate.predictions.checked_tiles`.
    """
    pixels = torch.from_numpy(checked_tiles(scenario, subject, split))
    return LabelledImages(pixels, torch.tensor([subject.index_of(name) for name in scenario.labels(split)]))
