"""What every trial of a correction learns from and is scored on; the test set and held-out tiles are not here."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.shifts import shifted_copies
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject

MOST_SHIFTED = 1000
"""Validation images that are shifted; five copies of each are scored in every trial."""


@dataclass(frozen=True, eq=False)
class Material:
    """The images of one correction.

    Attributes:
        train, validation: disjoint.
        shifted: validation images, shifted, by the name of the shift.
        tiles: each scenario's *correction* tiles with its label, by id.
        validation_source: where the validation images come from, in words.
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
        return fingerprint("material", train=self.train.hash, validation=self.validation.hash, tiles=tiles)


def material(subject: Subject, scenarios: Sequence[Scenario], settings: CorrectionSettings, seed: int) -> Material:
    """Read the images of a correction.

    Raises:
        DefuseError: tiles that do not fit the subject, or a label that it does not have.
    """
    train, validation = subject.train_images, subject.validation_images
    source = "the subject's validation set"
    if validation is None:
        train, validation = _split(train, seed)
        source = "a tenth of the training set, kept from finetuning"
    return Material(
        train,
        validation,
        shifted_copies(validation[:MOST_SHIFTED]) if settings.search == "halving" else {},
        {scenario.id: _labelled_tiles(scenario, subject) for scenario in scenarios},
        source,
    )


def _split(images: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Nine tenths and one tenth of every class, at random; a class of fewer than ten images stays in training."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    labels = images.labels[order]
    tenth = torch.zeros(len(images), dtype=torch.bool)
    for label in labels.unique():
        places = (labels == label).nonzero().squeeze(1)
        tenth[places[: len(places) // 10]] = True
    if not tenth.any():
        tenth[0] = True
    return images[order[~tenth]], images[order[tenth]]


def _labelled_tiles(scenario: Scenario, subject: Subject) -> LabelledImages:
    pixels = torch.from_numpy(scenario.pixels("correction"))
    subject.check_images(pixels, str(scenario.picture("correction")))
    assert scenario.record.label is not None, "an accepted scenario has a label"
    return LabelledImages(pixels, torch.full((len(pixels),), subject.index_of(scenario.record.label)))
