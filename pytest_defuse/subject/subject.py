"""The model under test and its data, which the user describes in conftest.py."""

import re
from collections import Counter
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
from pytest_defuse.subject.images import Dataset, LabelledImages, load, map_style, size_words, split_off


@dataclass(frozen=True, eq=False)
class Subject:
    """An image classifier, and the data that it was trained and tested on.

    Attributes:
        name: the subject's folder in the scenario store; letters, digits, ``.``, ``_`` and ``-``.
        model: normalised images, float N x C x H x W -> logits, N x len(classes). Never changed in place.
        classes: class names in the order of the logits.
        train, test: data sets of (image, class index); an image is a PIL image (L or RGB), a float
            C x H x W tensor in [0, 1], or uint8. All images of a subject have the same size and mode. Iterables,
            such as data loaders, are read into memory.
        validation: data set for choosing between corrected models; default: a tenth of ``train``, which finetuning
            does not use.
        normalize: a deterministic function of float images N x C x H x W in [0, 1] that is applied before the model;
            default: none.
        checkpoint: the file of ``model``'s weights; a corrected checkpoint is written next to it.
        shifts: further labelled data sets, by name, on which correction must not reduce accuracy.
        judges: reference classifiers that give a second opinion on what an image shows (same input and classes);
            default: small networks trained on ``train``.
        feature_network: the network whose features describe images in failure modes (same input, any output),
            preferably an adversarially robust one; default: ``model``.
        groups: groups of test images to find failure modes in, by name; each has one bool per test image.
        generator: encodes images to latent codes and decodes them (see :class:`pytest_defuse.ImageGenerator`);
            default: a beta-VAE trained on ``train``.

    Raises:
        DefuseError: a name, class list or model cannot be used.
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
            object.__setattr__(self, name, map_style(getattr(self, name)))
        object.__setattr__(self, "shifts", {name: map_style(dataset) for name, dataset in self.shifts.items()})
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise DefuseError(
                f"Subject(name={self.name!r}) becomes a folder: use letters, digits, '.', '_' and '-' only."
            )
        if not isinstance(self.model, nn.Module):
            raise DefuseError(f"Subject(model=...) is a {type(self.model).__name__}: give a torch.nn.Module.")
        if not _sequence_of(str, self.classes):
            raise DefuseError('Subject(classes=...) must be a list of names, such as ["cat", "dog"].')
        if len(self.classes) < 2:
            raise DefuseError("Subject(classes=...) must have at least two names.")
        if repeated := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise DefuseError(
                f"Subject(classes=...) has {', '.join(map(repr, repeated))} more than once: give each class its own "
                "name, in the order of the logits."
            )
        if not (self.normalize is None or callable(self.normalize)):
            raise DefuseError(
                f"Subject(normalize=...) is a {type(self.normalize).__name__}: give a function of float images "
                "N x C x H x W in [0, 1], or None."
            )
        if self.judges is not None and not (_sequence_of(nn.Module, self.judges) and self.judges):
            raise DefuseError("Subject(judges=...) must be a list of at least one torch.nn.Module, or None.")
        if not isinstance(self.feature_network, nn.Module | None):
            raise DefuseError("Subject(feature_network=...) must be a torch.nn.Module, or None.")

    @cached_property
    def train_images(self) -> LabelledImages:
        """The training set, read at the first access."""
        return load(self.train, "train", self.classes)

    @cached_property
    def test_images(self) -> LabelledImages:
        """The test set, read at the first access."""
        return load(self.test, "test", self.classes)

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of the images; it reads the first test image only."""
        return tuple(load(self.test, "test", self.classes, count=1).pixels.shape[1:])

    @cached_property
    def validation_images(self) -> LabelledImages | None:
        """The validation set, read at the first access; None without one."""
        return None if self.validation is None else load(self.validation, "validation", self.classes)

    @cached_property
    def split(self) -> tuple[LabelledImages, LabelledImages]:
        """Images to train on, and validation images: all of ``train``, or its nine tenths of :func:`split_off`."""
        validation = self.validation_images
        return split_off(self.train_images) if validation is None else (self.train_images, validation)

    def shift_images(self, name: str) -> LabelledImages:
        """The shift set of a name, read at every call."""
        return load(self.shifts[name], f"shifts[{name!r}]", self.classes)

    def classifier(
        self, device: torch.device | str = "cpu", model: nn.Module | None = None, name: str = "the model"
    ) -> Classifier:
        """A frozen copy of ``model`` (default: the subject's) for this subject's images, named ``name`` in messages."""
        return Classifier(
            self.model if model is None else model,
            len(self.classes),
            image_shape=self.image_shape,
            normalize=self.normalize,
            device=device,
            name=f"{name} of subject {self.name!r}",
        )

    def index_of(self, class_name: str) -> int:
        """The class index of a name; raises DefuseError if the subject has no such class."""
        if class_name not in self.classes:
            raise DefuseError(
                f"{class_name!r} is not a class of subject {self.name!r}, which has: {', '.join(self.classes)}."
            )
        return list(self.classes).index(class_name)

    def check_classes(self, stored: Sequence[str], where: str, remedy: str) -> None:
        """Raise DefuseError unless ``classes`` begin with the ``stored`` ones; a grown model may have more after them.

        Args:
            where: a file, which the message names.
            remedy: what to do if the order of the model's logits is another now.
        """
        for index, name in enumerate(stored):
            own = repr(self.classes[index]) if index < len(self.classes) else "missing"
            if own != repr(name):
                raise DefuseError(
                    f"{where}: class {index} is {name!r}, but in subject {self.name!r} it is {own}: give "
                    f"Subject(classes=...) in the order of the model's logits; if that order has changed, {remedy}."
                )

    def check_images(self, pixels: Tensor, where: str) -> None:
        """Raise DefuseError unless images have the size and mode of the test set; ``where`` names them in messages."""
        if tuple(pixels.shape[1:]) != self.image_shape:
            raise DefuseError(
                f"{where} has images of {size_words(pixels.shape)}, but the test set of subject {self.name!r} is "
                f"{size_words(self.image_shape)}: discover again, or give the subject images of that size."
            )


def _sequence_of(kind: type, items: Any) -> bool:
    return isinstance(items, Sequence) and not isinstance(items, str) and all(isinstance(i, kind) for i in items)
