"""Classifiers of real images to discover failures of, and to correct: small networks, trained once and kept.

The images lie in the folder DEFUSE_DATA (default ../shared/data) in torchvision's layout.
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
TRAIN = 12_000
"""Grey images that are trained on, as few as many teams have; the others but the last 2,000 are left out."""
STEPS = 1500
TRACKS = 80
"""Tracks of traffic signs that validate."""


def subject_of(name: str, cache: Path) -> Subject:
    """The classifier of a collection, its weights kept in the folder ``cache``.

    Raises:
        FileNotFoundError: the images are not there.
    """
    if not DATA.is_dir():
        raise FileNotFoundError(f"{DATA} is not there: name the folder of the data sets in DEFUSE_DATA.")
    train, validation, test = _signs() if name == "gtsrb" else _grey(name)
    classes = {"mnist": "0123456789", "fashion": GARMENTS, "gtsrb": [f"sign {n}" for n in range(43)]}[name]
    pixels, labels = train.tensors
    with seeded(100):
        model = classifier(pixels.shape[1], len(classes))

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(labels), (128,))
        return F.cross_entropy(model(pixels[chosen] / 255), labels[chosen])

    checkpoint = cache / f"{name}.safetensors"
    train_once(model, loss, Schedule(STEPS, 2e-3), checkpoint, seed=100, progress=Progress(), title="")
    shifts = {"uci digits": _uci_digits()} if name == "mnist" else {}
    return Subject(name, model, list(classes), train, test, validation=validation, checkpoint=checkpoint, shifts=shifts)


def classifier(channels: int, classes: int) -> nn.Module:
    """Convolutions with dropout for grey images, as in the papers' MNIST network; with batch norm for colour."""
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
    few, last = (
        TensorDataset(train.data[part][:, None], train.targets[part]) for part in (slice(TRAIN), slice(-2000, None))
    )
    return few, last, TensorDataset(test.data[:, None], test.targets)


def _signs() -> Parts:
    train = datasets.GTSRB(str(DATA), split="train")
    # Frames of one track are near-duplicates: a track is either for training or for validation.
    tracks = [(label, Path(path).name.split("_")[0]) for path, label in train._samples]
    held = np.random.default_rng(0).permutation(sorted(set(tracks)))[:TRACKS]
    validates = torch.tensor([any((int(h[0]), h[1]) == track for h in held) for track in tracks])
    pixels, labels = _stacked(train)
    parts = (TensorDataset(pixels[chosen], labels[chosen]) for chosen in (~validates, validates))
    return *parts, TensorDataset(*_stacked(datasets.GTSRB(str(DATA), split="test")))


def _stacked(signs: datasets.GTSRB) -> tuple[Tensor, Tensor]:
    to_pixels = v2.PILToTensor()
    return torch.stack([to_pixels(image) for image, _ in signs]), torch.tensor([label for _, label in signs._samples])


def _uci_digits() -> TensorDataset:
    """1,797 digits of other writers, 8 x 8 of 17 levels, inside scikit-learn; enlarged and framed like MNIST's."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    framed = F.pad(F.interpolate(small, (20, 20), mode="bicubic").clamp(0, 1), (4, 4, 4, 4))
    return TensorDataset((framed * 255).round().to(torch.uint8), torch.from_numpy(digits.target).long())
