"""The model under test and its data: the one thing that a user must describe."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import Dataset, LabelledImages, indexed, load, size_words


@dataclass(frozen=True, eq=False)
class Subject:
    """An image classifier and the data it was made from.

    Attributes:
        name: the subject's folder in the scenario store; letters, digits, ``.``, ``_`` and ``-``.
        model: normalised images, float N x C x H x W -> logits, N x len(classes). Never changed in place.
        classes: class names in the order of the logits.
        train, test: data sets of (image, class index); an image is a PIL image (L or RGB), a float
            C x H x W tensor in [0, 1], or uint8. All images of a subject have one size and mode. What can only
            be gone through, such as a generator of batches, is read into memory.
        validation: chooses between corrected models; default: a tenth of ``train``, kept from finetuning.
        normalize: applied between pixels in [0, 1] and the model; default: nothing.
        checkpoint: the file that ``model``'s weights come from; a corrected one is written beside it.
        shifts: further labelled data sets, by name, that the model must not get worse on.
        judges: other models (same input, same classes) whose second opinion says what an image shows;
            default: small networks trained on ``train``.
        feature_network: the network whose features describe images in failure modes (same input; what it outputs
            does not matter), best an adversarially robust one; default: ``model``.
        groups: named groups of test images to look for failure modes in, each one bool a test image.
        generator: what decodes latent codes to images (``encode``, ``decode`` and ``hash``, see
            :class:`pytest_defuse.ImageGenerator`); default: a beta-VAE trained on ``train``.

    Raises:
        DefuseError: a name, class list or model that cannot be used.
    """

    name: str
    model: nn.Module
    classes: Sequence[str]
    train: Dataset
    test: Dataset
    validation: Dataset | None = None
    normalize: Callable[[Tensor], Tensor] | None = None
    checkpoint: str | Path | None = None
    shifts: Mapping[str, Dataset] = field(default_factory=dict)
    judges: Sequence[nn.Module] | None = None
    feature_network: nn.Module | None = None
    groups: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    generator: ImageGenerator | None = None

    def __post_init__(self) -> None:
        for name in ("train", "test", "validation"):
            object.__setattr__(self, name, indexed(getattr(self, name)))
        object.__setattr__(self, "shifts", {name: indexed(dataset) for name, dataset in self.shifts.items()})
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise DefuseError(
                f"Subject(name={self.name!r}) becomes a folder: use letters, digits, '.', '_' and '-' only."
            )
        if not isinstance(self.model, nn.Module):
            raise DefuseError(f"Subject(model=...) is a {type(self.model).__name__}: give a torch.nn.Module.")
        if not _sequence_of(str, self.classes):
            raise DefuseError('Subject(classes=...) must be a list of names, such as ["cat", "dog"].')
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise DefuseError("Subject(classes=...) must hold at least two names, each once.")
        if self.judges is not None and not (_sequence_of(nn.Module, self.judges) and self.judges):
            raise DefuseError("Subject(judges=...) must be a list of at least one torch.nn.Module, or None.")
        if not isinstance(self.feature_network, nn.Module | None):
            raise DefuseError("Subject(feature_network=...) must be a torch.nn.Module, or None.")

    @cached_property
    def train_images(self) -> LabelledImages:
        """The training set in memory."""
        return load(self.train, "train", self.classes)

    @cached_property
    def test_images(self) -> LabelledImages:
        """The test set in memory."""
        return load(self.test, "test", self.classes)

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of the first test image: a gate on scenarios need not read the whole test set."""
        return tuple(load(self.test, "test", self.classes, count=1).pixels.shape[1:])

    @cached_property
    def validation_images(self) -> LabelledImages | None:
        """The validation set in memory, where the user gave one."""
        return None if self.validation is None else load(self.validation, "validation", self.classes)

    def shift_images(self, name: str) -> LabelledImages:
        """The shift set called ``name``, read anew at every call."""
        return load(self.shifts[name], f"shifts[{name!r}]", self.classes)

    def classifier(
        self, device: torch.device | str = "cpu", model: nn.Module | None = None, name: str = "the model"
    ) -> Classifier:
        """A frozen copy of ``model`` (default: the subject's) that reads this subject's images.

        Args:
            name: what messages call the model, without its subject.
        """
        return Classifier(
            self.model if model is None else model,
            len(self.classes),
            image_shape=self.image_shape,
            normalize=self.normalize,
            device=device,
            name=f"{name} of subject {self.name!r}",
        )

    def index_of(self, class_name: str) -> int:
        """The class index of a name.

        Raises:
            DefuseError: the subject has no such class.
        """
        if class_name not in self.classes:
            raise DefuseError(
                f"{class_name!r} is not a class of subject {self.name!r}, which has: {', '.join(self.classes)}."
            )
        return list(self.classes).index(class_name)

    def check_images(self, pixels: Tensor, where: str) -> None:
        """Refuse pixels of another size or mode than the test set's.

        Raises:
            DefuseError: they differ.
        """
        if tuple(pixels.shape[1:]) != self.image_shape:
            raise DefuseError(
                f"{where} holds images of {size_words(pixels.shape)}, but the test set of subject {self.name!r} is "
                f"{size_words(self.image_shape)}: discover again, or give the subject images of that size."
            )


def _sequence_of(kind: type, items: Any) -> bool:
    return isinstance(items, Sequence) and not isinstance(items, str) and all(isinstance(i, kind) for i in items)
