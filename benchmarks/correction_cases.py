"""What the correction benchmark corrects: a classifier of real images, and scenarios that it fails on.

The scenarios are made the way discovery makes them (a generator, second opinions, regions, fresh draws) but
without the discovery, so that the two are measured apart. Everything costly is kept in a cache folder.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import datasets
from torchvision.transforms import v2

from pytest_defuse.scenarios.schema import (
    FailureRate,
    Method,
    Provenance,
    ScenarioRecord,
    Sheet,
    Sheets,
    StoreRecord,
)
from pytest_defuse.scenarios.sheets import pixel_hash, tile_of
from pytest_defuse.scenarios.store import Scenario, Store, scenario_id
from pytest_defuse.subject import Subject

DATA = Path(os.environ.get("DEFUSE_DATA", "../shared/data"))
TILES = 256
MOST_SCENARIOS = 12


@dataclass(frozen=True)
class Recipe:
    """How the case of one collection is made.

    Attributes:
        train: images to train on; further ones validate.
        epochs: of the classifier under test.
        latent, generator_steps, perceptual: the generator; the last weighs what a judge sees against pixels.
        judge_steps: optimiser steps of each of three judges.
    """

    classes: int
    train: int
    epochs: int
    batch_norm: bool
    latent: int
    generator_steps: int
    perceptual: float
    judge_steps: int


RECIPES = {
    "mnist": Recipe(10, 12_000, 4, False, 16, 2500, 20.0, 500),
    "fashion": Recipe(10, 12_000, 4, True, 24, 1500, 20.0, 500),
    "gtsrb": Recipe(43, 17_000, 4, True, 48, 2200, 40.0, 800),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A subject, its accepted scenarios, and single adversarial images with the labels of their source images."""

    subject: Subject
    scenarios: list[Scenario]
    adversarial_pixels: Tensor
    adversarial_labels: Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """uint8 pixels N x C x H x W and labels; a data set of pairs."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pixels[index], int(self.labels[index])


@dataclass(frozen=True, eq=False)
class Collection:
    """Real images of one kind; ``shifts`` are further collections of the same classes."""

    train: Images
    validation: Images
    test: Images
    shifts: Mapping[str, Images] = field(default_factory=dict)


def case(name: str, cache: Path, seed: int = 0) -> Case:
    """The case of a collection: from the cache, or made now.

    Raises:
        FileNotFoundError: the real images are not where DEFUSE_DATA says.
    """
    recipe, data = RECIPES[name], collection(name)
    folder = cache / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = classifier(data.train.pixels.shape[1], recipe)
    steps = recipe.epochs * len(data.train) // 128
    _kept(folder / "model.safetensors", model, lambda: _train(model, data.train, steps, 1e-3, augmented=False))
    subject = Subject(
        name=name,
        model=model.eval(),
        classes=[str(label) for label in range(recipe.classes)],
        train=data.train,
        test=data.test,
        validation=data.validation,
        checkpoint=folder / "model.safetensors",
        shifts=data.shifts,
    )
    found = folder / "found.safetensors"
    if not found.exists():
        save_file(_search(subject, data, recipe, folder, seed), found)
    tensors = load_file(found)
    return Case(
        subject,
        [_stored(subject, Store(folder / "store"), *_numbers(key), tensors[key]) for key in tensors if "-as-" in key],
        tensors["adversarial pixels"],
        tensors["adversarial labels"],
    )


def collection(name: str) -> Collection:
    """Real images, split the same way every time."""
    if name == "gtsrb":
        return _signs()
    kind = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST}[name]
    try:
        train, test = (kind(DATA, train=train, download=False) for train in (True, False))
    except RuntimeError as error:
        raise FileNotFoundError(f"no {name} in {DATA}: set DEFUSE_DATA") from error
    count = RECIPES[name].train
    parts = [Images(train.data[part][:, None], train.targets[part]) for part in (slice(count), slice(-2000, None))]
    return Collection(
        *parts, Images(test.data[:, None], test.targets), {"uci digits": _uci_digits()} if name == "mnist" else {}
    )


def classifier(channels: int, recipe: Recipe) -> nn.Module:
    """Convolutions with dropout, as in the papers' MNIST network, or with batch normalisation."""
    if not recipe.batch_norm:
        return nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Dropout(0.25), nn.Flatten(), nn.Linear(64 * 25, 128), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(128, recipe.classes),
        )
    layers: list[nn.Module] = []
    for inputs, outputs, pool in ((channels, 32, True), (32, 64, True), (64, 96, False)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96 * 16, recipe.classes))


def _signs() -> Collection:
    folder = DATA / "gtsrb" / "GTSRB"
    if not folder.exists():
        raise FileNotFoundError(f"no gtsrb in {DATA}: set DEFUSE_DATA")
    to_pixels = v2.PILToTensor()
    train = datasets.GTSRB(DATA, split="train", download=False)
    # Frames of one track are near-duplicates: a track is either for training or for validation.
    tracks = [(label, Path(path).name.split("_")[0]) for path, label in train._samples]
    held = np.random.default_rng(0).permutation(sorted(set(tracks)))[:80]
    validates = torch.tensor([any((int(h[0]), h[1]) == track for h in held) for track in tracks])
    pixels = torch.stack([to_pixels(image) for image, _ in train])
    labels = torch.tensor([label for _, label in train._samples])
    test = datasets.GTSRB(DATA, split="test", download=False)
    test_images = Images(
        torch.stack([to_pixels(image) for image, _ in test]), torch.tensor([label for _, label in test._samples])
    )
    return Collection(
        Images(pixels[~validates], labels[~validates]), Images(pixels[validates], labels[validates]), test_images
    )


def _uci_digits() -> Images:
    """1,797 digits of other writers, 8 x 8 of 17 levels, inside scikit-learn; enlarged and framed like MNIST's."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    framed = F.pad(F.interpolate(small, (20, 20), mode="bicubic").clamp(0, 1), (4, 4, 4, 4))
    return Images((framed * 255).round().to(torch.uint8), torch.from_numpy(digits.target).long())


def _train(
    network: nn.Module, images: Images, steps: int, rate: float, *, augmented: bool, name: str = "the classifier"
) -> None:
    print(f"training {name}", flush=True)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3 * rate, steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (128,))
        batch = images.pixels[chosen].float() / 255
        loss = F.cross_entropy(network(_moved(batch) if augmented else batch), images.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


def _moved(images: Tensor) -> Tensor:
    """Each image turned, scaled, sheared and moved a little."""
    angle, scale, shear, x, y = (torch.rand(5, len(images)) * 2 - 1).unbind()
    angle, scale = 0.2 * angle, 1 + 0.12 * scale
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, 0.12 * shear - sin, 0.12 * x, sin, cos, 0.12 * y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")


class _Generator(nn.Module):
    """A convolutional VAE."""

    def __init__(self, channels: int, size: int, latent: int) -> None:
        super().__init__()
        grid = size // 4
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(64 * grid**2, 256), nn.ReLU(), nn.Linear(256, 2 * latent)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(latent, 256), nn.ReLU(), nn.Linear(256, 64 * grid**2), nn.Unflatten(1, (64, grid, grid))),
            *(nn.ReLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, channels, 4, 2, 1)),
            nn.Sigmoid(),
        )

    @torch.inference_mode()
    def means(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.encoder(part.float() / 255).chunk(2, dim=1)[0] for part in pixels.split(512)])

    @torch.inference_mode()
    def pixels(self, codes: Tensor) -> Tensor:
        return torch.cat([(self.decoder(part) * 255).round().to(torch.uint8) for part in codes.split(512)])


def _train_generator(generator: _Generator, judge: nn.Module, images: Images, recipe: Recipe) -> None:
    print("training the generator", flush=True)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.generator_steps)
    features = judge[:8].eval().requires_grad_(False)  # to the second normalised convolution and its activation
    for step in range(recipe.generator_steps):
        batch = images.pixels[torch.randint(len(images), (128,))].float() / 255
        mean, log_variance = generator.encoder(batch).chunk(2, dim=1)
        log_variance = log_variance.clamp(-12, 6)
        rebuilt = generator.decoder(mean + torch.randn_like(mean) * (log_variance / 2).exp())
        error = F.binary_cross_entropy(rebuilt, batch, reduction="sum") / len(batch)
        seen = (features(rebuilt) - features(batch)).square().flatten(1).mean(dim=1).mean()
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2 / len(batch)
        weight = 0.5 * min(1.0, (step + 1) / 500)
        loss = error + recipe.perceptual * seen * batch[0].numel() / 100 + weight * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _judge(channels: int, classes: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs, stride, pool in (
        (channels, width, 2, False),
        (width, 2 * width, 1, True),
        (2 * width, 4 * width, 1, True),
    ):
        layers += [nn.Conv2d(inputs, outputs, 5 if stride == 2 else 3, stride, 2 if stride == 2 else 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2) if pool else nn.Identity()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16 * width, classes))


@torch.inference_mode()
def _logits(network: nn.Module, pixels: Tensor) -> Tensor:
    return torch.cat([network.eval()(part.float() / 255) for part in pixels.split(512)])


def _search(subject: Subject, data: Collection, recipe: Recipe, folder: Path, seed: int) -> dict[str, Tensor]:
    """Scenario tiles by error, 2 x TILES each, and single adversarial images."""
    channels, size = data.train.pixels.shape[1:3]
    judges = [_judge(channels, recipe.classes, width) for width in (24, 28, 32)]
    for number, judge in enumerate(judges):
        torch.manual_seed(seed + 10 + number)
        train = _trainer(judge, data.train, recipe.judge_steps, f"judge {number + 1}")
        _kept(folder / f"judge{number}.safetensors", judge, train)
        accuracy = (_logits(judge, data.test.pixels).argmax(1) == data.test.labels).float().mean()
        print(f"judge {number + 1}: {accuracy:.2%} on the test set", flush=True)
    generator = _Generator(channels, size, recipe.latent)
    _kept(
        folder / "generator.safetensors",
        generator,
        lambda: _train_generator(generator, judges[0], data.train, recipe),
    )

    model = subject.model
    means = generator.means(data.train.pixels)
    rebuilt = _logits(model, generator.pixels(means))
    own = rebuilt.gather(1, data.train.labels[:, None])[:, 0]
    margin = own - rebuilt.scatter(1, data.train.labels[:, None], -torch.inf).max(dim=1).values
    right = (margin > 0).nonzero()[:, 0]
    closest = right[margin[right].argsort()[:4000]]

    def verdicts(codes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixels, what the judges see, whether they are sure, and what the model says."""
        pixels = generator.pixels(codes)
        sure, seen = torch.stack([_logits(judge, pixels).softmax(1) for judge in judges]).max(dim=2)
        agreed = (seen == seen[0]).all(dim=0) & (sure >= 0.9).all(dim=0)
        return pixels, seen[0], agreed, _logits(model, pixels).argmax(dim=1)

    noise = torch.Generator().manual_seed(seed)
    spread = means.std(dim=0)
    origins, sources = means[closest].repeat_interleave(12, 0), data.train.labels[closest].repeat_interleave(12)
    codes = origins + 0.4 * spread * torch.randn(origins.shape, generator=noise)
    pixels, seen, agreed, said = verdicts(codes)
    # What the papers' baseline finetunes on: draws that the model takes for another class than their source's.
    adversarial = said != sources
    failed = agreed & (seen != said)
    around = codes[failed][:3000].repeat_interleave(10, 0)
    around = around + 0.3 * spread * torch.randn(around.shape, generator=noise)
    _, more_seen, more_agreed, more_said = verdicts(around)
    failed_too = more_agreed & (more_seen != more_said)
    all_codes = torch.cat([codes[failed], around[failed_too]])
    pairs = torch.stack(
        [torch.cat([seen[failed], more_seen[failed_too]]), torch.cat([said[failed], more_said[failed_too]])], 1
    )

    found: dict[str, Tensor] = {
        "adversarial pixels": pixels[adversarial][:4000].contiguous(),
        "adversarial labels": sources[adversarial][:4000].contiguous(),
    }
    kinds, counts = pairs.unique(dim=0, return_counts=True)
    for index in counts.argsort(descending=True).tolist():
        label, prediction = kinds[index].tolist()
        if counts[index] < 2 * recipe.latent or len(found) == MOST_SCENARIOS + 2:
            break
        group = all_codes[(pairs == kinds[index]).all(dim=1)]
        covariance = 0.15 * torch.cov(group.T) + 1e-4 * torch.eye(recipe.latent)
        root = torch.linalg.cholesky(covariance)
        fresh = group.mean(dim=0) + torch.randn(6 * TILES, recipe.latent, generator=noise) @ root.T
        tiles, shows, sure, says = verdicts(fresh)
        clear = sure & (shows == label)
        fails = (clear & (says != label)).float().mean().item()
        print(f"{label} as {prediction}: {counts[index]} failures, {fails:.0%} of fresh draws fail", flush=True)
        if fails > 0.35 and clear.sum() >= 2 * TILES:
            found[f"{label}-as-{prediction}"] = tiles[clear][: 2 * TILES].contiguous()
    return found


def _trainer(judge: nn.Module, images: Images, steps: int, name: str) -> Callable[[], None]:
    return lambda: _train(judge, images, steps, 2e-3, augmented=True, name=name)


def _kept(file: Path, network: nn.Module, train: Callable[[], None]) -> None:
    """Weights from a file, or trained now and kept."""
    if not file.exists():
        train()
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, file)
    network.load_state_dict(load_file(file))
    network.eval()


def _numbers(key: str) -> tuple[int, int]:
    label, _, prediction = key.partition("-as-")
    return int(label), int(prediction)


def _stored(subject: Subject, store: Store, label: int, prediction: int, pixels: Tensor) -> Scenario:
    """An accepted scenario of tiles: the first half to correct on, the second held out."""
    shows, taken_for = str(label), str(prediction)
    correction, held_out = (part.numpy() for part in pixels.split(TILES))
    tile = tile_of(held_out)
    store.open_for(subject.classes, StoreRecord(format=1, classes=tuple(subject.classes), tile=tile))
    sheets = [
        Sheet(images=len(part), sha256=pixel_hash(part), predicted={taken_for: len(part)})
        for part in (correction, held_out)
    ]
    record = ScenarioRecord(
        format=1,
        id=scenario_id(shows, taken_for, sheets[1].sha256),
        status="accepted",
        label=shows,
        proposed_label=shows,
        failure_rate=FailureRate(failed=1, drawn=2, low=0.0, high=1.0),
        tile=tile,
        sheets=Sheets(correction=sheets[0], held_out=sheets[1]),
        method=Method(name="defuse"),
        provenance=Provenance(model="0" * 64, data="0" * 64, seed=0, versions={}),
        region=None,
    )
    return store.add(record, correction, held_out)
