"""The images on which every trial of a correction is trained and scored: no test images, no held-out tiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.shifts import shifted_copies
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.scenarios.schema import Split
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.images import LabelledImages
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


def correction_data(
    subject: Subject, scenarios: Sequence[Scenario], settings: CorrectionSettings, seed: int
) -> CorrectionData:
    """Read the images of a correction.

    Raises:
        DefuseError: images cannot be read, or tiles do not fit the subject.
    """
    train, validation = subject.train_images, subject.validation_images
    source = "the subject's validation set"
    if validation is None:
        train, validation = _split(train, seed)
        source = "a tenth of the training set, not used for finetuning"
    return CorrectionData(
        train,
        validation,
        shifted_copies(validation[:SHIFTED_IMAGES]) if settings.search == "halving" else {},
        {scenario.id: labelled_tiles(scenario, subject, "correction") for scenario in scenarios},
        source,
    )


def _split(images: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Split every class at random into nine tenths and one tenth; classes of fewer than ten images stay in training."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    labels = images.labels[order]
    tenth = torch.zeros(len(images), dtype=torch.bool)
    for label in labels.unique():
        positions = (labels == label).nonzero().squeeze(1)
        tenth[positions[: len(positions) // 10]] = True
    if not tenth.any():
        tenth[0] = True
    return images[order[~tenth]], images[order[tenth]]


def labelled_tiles(scenario: Scenario, subject: Subject, split: Split) -> LabelledImages:
    """The tiles of a split that are not excluded, with their labels.

    Raises:
        DefuseError: the sheet cannot be read, or its tiles or labels do not fit the subject.
    """
    pixels = torch.from_numpy(scenario.pixels(split))
    subject.check_images(pixels, str(scenario.sheet_file(split)))
    return LabelledImages(pixels, torch.tensor([subject.index_of(name) for name in scenario.labels(split)]))
