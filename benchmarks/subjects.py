"""Subjects of the benchmarks: small classifiers of real images, trained once and cached.

The images are in the folder DEFUSE_DATA (default ../shared/data) in torchvision's layout.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchvision import datasets
from torchvision.transforms import v2

from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.training import Schedule, train_once
from pytest_defuse.subject.subject import Subject

DATA = Path(os.environ.get("DEFUSE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
COLLECTIONS = ("mnist", "fashion", "gtsrb")
GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TRAINING_IMAGES = 12_000
"""Grey images to train on, a number that many teams have; of the others, the last 2,000 validate."""
STEPS = 1500
"""Optimizer steps."""
VALIDATION_TRACKS = 80
"""Tracks of traffic signs that validate."""


def subject_of(name: str, cache: Path) -> Subject:
    """The classifier of a collection, with its weights cached in ``cache``.

    Raises:
        FileNotFoundError: the images are missing.
    """
    if not DATA.is_dir():
        raise FileNotFoundError(f"{DATA} does not exist: set DEFUSE_DATA to the folder of the data sets.")
    train, validation, test = _signs() if name == "gtsrb" else _grey(name)
    classes = {"mnist": "0123456789", "fashion": GARMENTS, "gtsrb": [f"sign {n}" for n in range(43)]}[name]
    pixels, labels = train.tensors
    with seeded(100):
        model = classifier(pixels.shape[1], len(classes))

    def loss(step: int) -> Tensor:
        indices = torch.randint(len(labels), (128,))
        return F.cross_entropy(model(pixels[indices] / 255), labels[indices])

    checkpoint = cache / f"{name}.safetensors"
    train_once(model, loss, Schedule(STEPS, 2e-3), checkpoint, seed=100, progress=Progress(), title="")
    shifts = {"uci digits": _uci_digits()} if name == "mnist" else {}
    return Subject(name, model, list(classes), train, test, validation=validation, checkpoint=checkpoint, shifts=shifts)


def classifier(channels: int, classes: int) -> nn.Module:
    """For grey images the papers' MNIST network, with dropout; for colour, convolutions with batch norm."""
    if channels == 1:
        return nn.Sequential(
            *(nn.Conv2d(1, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Dropout(0.25), nn.Flatten(), nn.Linear(64 * 25, 128), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(128, classes),
        )
    layers: list[nn.Module] = []
    for inputs, outputs, pool in ((channels, 32, True), (32, 64, True), (64, 96, False)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96 * 16, classes))


Parts = tuple[TensorDataset, TensorDataset, TensorDataset]
"""Training, validation and test images."""


def _grey(name: str) -> Parts:
    kind = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST}[name]
    train, test = (kind(str(DATA), train=train) for train in (True, False))
    first, last = (
        TensorDataset(train.data[part][:, None], train.targets[part])
        for part in (slice(TRAINING_IMAGES), slice(-2000, None))
    )
    return first, last, TensorDataset(test.data[:, None], test.targets)


def _signs() -> Parts:
    train = datasets.GTSRB(str(DATA), split="train")
    # The frames of one track are near-duplicates, so a track is used as a whole for training or for validation.
    tracks = [(label, Path(path).name.split("_")[0]) for path, label in train._samples]
    validation = np.random.default_rng(0).permutation(sorted(set(tracks)))[:VALIDATION_TRACKS]
    validation = {(int(label), number) for label, number in validation}
    validates = torch.tensor([track in validation for track in tracks])
    pixels, labels = _stacked(train)
    parts = (TensorDataset(pixels[mask], labels[mask]) for mask in (~validates, validates))
    return *parts, TensorDataset(*_stacked(datasets.GTSRB(str(DATA), split="test")))


def _stacked(signs: datasets.GTSRB) -> tuple[Tensor, Tensor]:
    to_pixels = v2.PILToTensor()
    return torch.stack([to_pixels(image) for image, _ in signs]), torch.tensor([label for _, label in signs._samples])


def _uci_digits() -> TensorDataset:
    """scikit-learn's 1,797 digits by other writers, 8 x 8 with 17 grey levels, enlarged and framed like MNIST's."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    framed = F.pad(F.interpolate(images, (20, 20), mode="bicubic").clamp(0, 1), (4, 4, 4, 4))
    return TensorDataset((framed * 255).round().to(torch.uint8), torch.from_numpy(digits.target).long())
