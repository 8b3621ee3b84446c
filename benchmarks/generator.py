"""What the built-in generators keep of real images, and how good the judges are.

    python benchmarks/generator.py mnist gtsrb fashion --plain --cache .benchmarks

For each data set, this trains a model under test, three judges (reference classifiers that give a second opinion) and
generators, and measures accuracies. Everything is cached, so a second run trains nothing and shows no cost. Data: the
folder DEFUSE_DATA (default ../shared/data) in torchvision's layout. CPU seconds are user + system time of the process.

Measured on one core of an AMD EPYC with avx512_bf16, seed 0: accuracy on reconstructions of training / held-out images.
Judge 3 was not used to train the generator. On the images themselves, the model has 99.2% / 98.7% on MNIST and
99.8% / 96.8% on GTSRB.

| data   | steps       | CPU s | active |   KL | model         | judge 3       |
|--------|-------------|-------|--------|------|---------------|---------------|
| MNIST  | 3,000       |   242 | 16/16  | 39.6 | 98.7% / 97.5% | 98.9% / 97.8% |
| MNIST  | 2,000       |   217 | 16/16  | 39.3 | 98.6% / 97.5% | 98.8% / 97.9% |
| MNIST  | 800         |    67 | 16/16  | 38.7 | 97.7% / 96.7% | 97.5% / 97.0% |
| MNIST  | 800 float32 |    92 | 16/16  | 38.7 | 97.8% / 96.4% | 97.7% / 97.0% |
| GTSRB  | 1,500       |   176 | 48/48  | 95.0 | 93.8% / 84.6% | 92.6% / 85.8% |

Three judges took 65 CPU s on MNIST (600 steps each; test accuracy 99.2, 99.2, 99.4%) and 389 CPU s on GTSRB (2,580
steps; 95.9, 97.4, 98.1%). The defaults are now 2,000 steps for a generator and at least 1,200 for a judge: with 12,000
images of Fashion-MNIST, judges have 85.0 to 85.8% test accuracy after 600 steps and 87.2 to 88.1% after 1,200.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from subjects import DATA
from torch import nn
from torch.nn import functional as F
from torchvision import datasets

from pytest_defuse.discover.generator import GeneratorSettings, trained_generator
from pytest_defuse.discover.judge_calibration import calibrate, judges_report
from pytest_defuse.discover.judges import Judges, JudgeSettings, augment, trained_judges
from pytest_defuse.discover.latent_images import MIN_ACTIVE_VARIANCE
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.runtime.training import Schedule, train_once
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages, split_off, to_pixels

Parts = tuple[LabelledImages, LabelledImages, LabelledImages]
"""Training images, held-out images for calibration, test images."""

MAX_IMAGES = 5000
"""Images of a set that are reconstructed, evenly spaced."""


def mnist(kind: Callable[..., datasets.MNIST] = datasets.MNIST) -> Parts:
    def images(train: bool) -> LabelledImages:
        data = kind(str(DATA), train=train, download=False)
        return LabelledImages(data.data[:, None], data.targets)

    train, held_out = split_off(images(True))
    return train, held_out, images(False)


def fashion() -> Parts:
    return mnist(datasets.FashionMNIST)


def gtsrb() -> Parts:
    """Every tenth track of a class is held out as a whole: the frames of one track are near-duplicates."""
    train = datasets.GTSRB(str(DATA), split="train")
    tracks = [int(Path(file).name.partition("_")[0]) for file, _ in train._samples]
    held_out = torch.tensor([track % 10 == 9 for track in tracks])
    images = _read(train)
    return images[~held_out], images[held_out], _read(datasets.GTSRB(str(DATA), split="test"))


def _read(data: datasets.GTSRB) -> LabelledImages:
    pairs = [data[index] for index in range(len(data))]
    return LabelledImages(
        torch.stack([to_pixels(image, "GTSRB") for image, _ in pairs]), torch.tensor([label for _, label in pairs])
    )


def network(channels: int, class_count: int) -> nn.Module:
    """The model under test: the MNIST network of pytorch/examples; for colour a wider one with batch norm."""
    if channels == 1:
        return nn.Sequential(
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
            *(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, class_count)),
        )
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 5, padding=2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Dropout(0.4), nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, class_count)]
    return nn.Sequential(*layers, *head)


def model_under_test(name: str, images: LabelledImages, class_count: int, cache: Path) -> Classifier:
    with seeded(100):
        model = network(images.pixels.shape[1], class_count).to(memory_format=torch.channels_last)

    def loss(step: int) -> torch.Tensor:
        indices = torch.randint(len(images), (128,))
        inputs = images.pixels[indices] / 255
        if inputs.shape[1] == 3:
            inputs = augment(inputs)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=trains_in_bfloat16("cpu")):
            return F.cross_entropy(model(inputs).float(), images.labels[indices])

    file = cache / f"model-{name}.safetensors"
    train_once(model, loss, Schedule(1400, 2e-3), file, seed=100, progress=Progress(), title="")
    return Classifier(model, class_count, image_shape=images.pixels.shape[1:])


@dataclass(frozen=True)
class Bench:
    """One data set with its trained classifiers."""

    name: str
    train: LabelledImages
    held_out: LabelledImages
    test: LabelledImages
    model: Classifier
    judges: Judges
    cache: Path

    @staticmethod
    def of(name: str, cache: Path) -> "Bench":
        train, held_out, test = {"mnist": mnist, "fashion": fashion, "gtsrb": gtsrb}[name]()
        classes = int(train.labels.max()) + 1
        model = model_under_test(name, train, classes, cache)
        with cpu_time() as cost:
            panel = trained_judges(
                train, classes, JudgeSettings(), seed=0, device="cpu", cache=cache, progress=Progress()
            )
        judges = calibrate(panel, held_out)
        labels, confident = judges.labels(held_out.pixels)
        confident_accuracy = (labels == held_out.labels)[confident].double().mean().item()
        accuracies = [accuracy(classifier, test.pixels, test.labels) for classifier in (model, *panel)]
        print(f"\n{name}: {len(train):,} training, {len(held_out):,} held-out, {len(test):,} test images")
        print(f"  test accuracy: model {accuracies[0]:.2%}, judges {', '.join(f'{a:.2%}' for a in accuracies[1:])}")
        print(
            f"  judges trained in {cost()}; at confidence {judges.confidence:.3f} they agree on "
            f"{confident.double().mean():.1%} of the held-out images, {confident_accuracy:.2%} of these correctly"
        )
        for warning in judges_report(judges, model, held_out).warnings:
            print(f"  {warning}")
        return Bench(name, train, held_out, test, model, judges, cache)

    def row(self, name: str, settings: GeneratorSettings, grids: Path | None) -> None:
        """Train one generator with the first judge, and measure it with the model and the third judge."""
        with cpu_time() as cost:
            generator = trained_generator(
                self.train,
                settings,
                judge=self.judges.panel[0],
                seed=0,
                device="cpu",
                cache=self.cache,
                progress=Progress(),
            )
        mean, std = generator.encode(sample(self.train).pixels)
        variance = std.double() ** 2
        kl = (mean.double() ** 2 + variance - 1 - variance.log()).sum(dim=1).mean().item() / 2
        active = f"{int((mean.var(dim=0, correction=0) > MIN_ACTIVE_VARIANCE).sum())}/{mean.shape[1]}"
        accuracies = ""
        for classifier in (self.model, self.judges.panel[2]):
            for images in (sample(self.train), sample(self.held_out)):
                rebuilt = generator.decode(generator.encode(images.pixels)[0])
                accuracies += f"{accuracy(classifier, rebuilt, images.labels):>12.1%}"
        print(f"{self.name:<8}{name:<12}{cost():>12}{active:>8}{kl:>8.1f}{accuracies}", flush=True)
        if grids is not None:
            grids.mkdir(parents=True, exist_ok=True)
            save_grid(generator, self.train.pixels, self.held_out.pixels, grids / f"{self.name}-{name}.png")


def save_grid(generator: ImageGenerator, train: torch.Tensor, held_out: torch.Tensor, file: Path) -> None:
    """Training images, their reconstructions, and draws near them, three times; then the same for held-out images."""
    std = generator.encode(train[:2000])[0].std(dim=0)
    rows = []
    for chosen in torch.linspace(0, len(train) - 1, 60).long().split(20):
        codes = generator.encode(train[chosen])[0]
        e = torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
        rows += [train[chosen], generator.decode(codes), generator.decode(codes + 0.4 * std * e)]
    chosen = torch.linspace(0, len(held_out) - 1, 20).long()
    rows += [held_out[chosen], generator.decode(generator.encode(held_out[chosen])[0])]
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    Image.fromarray(grid.permute(1, 2, 0).squeeze(2).numpy()).save(file)


def sample(images: LabelledImages) -> LabelledImages:
    return images[:: -(-len(images) // MAX_IMAGES)]


def accuracy(classifier: Classifier, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    return (classifier.predict(pixels) == labels).double().mean().item()


@contextmanager
def cpu_time() -> Iterator[Callable[[], str]]:
    """Measures the cost of a training, or detects that it was loaded from the cache."""
    start = time.process_time()
    seconds = [0.0]
    yield lambda: f"{seconds[0]:.0f} CPU s" if seconds[0] > 5 else "cached"
    seconds[0] = time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=["mnist", "gtsrb", "fashion"], default=["mnist", "gtsrb"])
    parser.add_argument("--plain", action="store_true", help="also a generator without the perceptual term")
    parser.add_argument("--paper", type=int, metavar="EPOCHS", help="also the paper's beta-VAE, trained for EPOCHS")
    parser.add_argument("--cache", type=Path, default=Path(".defuse_cache"))
    parser.add_argument("--grids", type=Path, help="folder for images of reconstructions")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA} does not exist: set DEFUSE_DATA to the folder of the data sets.")
    for name in arguments.names:
        bench = Bench.of(name, arguments.cache)
        print(f"\naccuracy on reconstructions of at most {MAX_IMAGES:,} images; judge 3 was not used in training")
        heads = ("model/train", "held-out", "judge/train", "held-out")
        print(f"{'data':<8}{'setting':<12}{'training':>12}{'active':>8}{'KL':>8}" + "".join(f"{h:>12}" for h in heads))
        bench.row("default", GeneratorSettings(), arguments.grids)
        if arguments.plain:
            bench.row("plain", GeneratorSettings(perceptual_weight=0.0), arguments.grids)
        if arguments.paper:
            colour = bench.train.pixels.shape[1] == 3
            paper = GeneratorSettings.paper(
                len(bench.train), latent_dim=15 if colour else 10, channels=64 if colour else 32, epochs=arguments.paper
            )
            bench.row(f"paper, {arguments.paper}", paper, arguments.grids)


if __name__ == "__main__":
    main()
