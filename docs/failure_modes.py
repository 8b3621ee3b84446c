"""The failure modes shown in failure_modes.md: two models trained here, explained on real images.

    python docs/failure_modes.py gtsrb|fashion DEPTH FOLDER

The images are read from DEFUSE_DATA (default ../shared/data) in torchvision's layout; trained networks are kept in
.defuse_cache. On one CPU core each takes some minutes the first time.
"""

import os
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.datasets import GTSRB, FashionMNIST

from pytest_defuse import Subject
from pytest_defuse.explain import ExplainSettings, RobustSettings, explain, train_robust
from pytest_defuse.explain.figures import node_figure
from pytest_defuse.runtime.cache import cached_weights
from pytest_defuse.runtime.determinism import seeded

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("DEFUSE_DATA", ROOT.parent / "shared" / "data"))
CACHE = ROOT / ".defuse_cache"

ROBUST = {"gtsrb": RobustSettings(radius=0.5, steps=800), "fashion": RobustSettings(radius=1.0)}
GARMENTS = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
SIGNS = [
    *(f"speed limit {limit}" for limit in (20, 30, 50, 60, 70, 80)),
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by trucks",
    "right of way at next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "danger",
    "bend left",
    "bend right",
    "double bend",
    "bumps",
    "slippery road",
    "road narrows",
    "road works",
    "traffic signals",
    "pedestrians",
    "children",
    "bicycles",
    "ice or snow",
    "wild animals",
    "end of limits",
    "turn right",
    "turn left",
    "ahead only",
    "ahead or right",
    "ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by trucks",
]


def small_network(channels: int, class_count: int) -> nn.Module:
    """Three convolutions and two linear layers on images of 28 or 32 pixels."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel in ((channels, 16, 5), (16, 32, 3), (32, 64, 3)):
        layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(128), nn.ReLU(), nn.Linear(128, class_count))


def trained(name: str, network: nn.Module, pixels: Tensor, labels: Tensor, steps: int) -> nn.Module:
    """The model under test: an ordinary small network, from the cache or trained now."""

    def train() -> None:
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
        for _ in range(steps):
            chosen = torch.randint(len(labels), (128,))
            loss = F.cross_entropy(network(pixels[chosen].float() / 255), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    cached_weights(network, CACHE / f"{name}-{steps}.safetensors", train, print)
    return network.eval()


def subject(name: str) -> Subject:
    """A subject with a model trained here and a robust network to describe its images by."""
    if name == "gtsrb":
        train, test, classes = GTSRB(str(DATA), "train"), GTSRB(str(DATA), "test"), SIGNS
    else:
        train, test, classes = FashionMNIST(str(DATA)), FashionMNIST(str(DATA), train=False), GARMENTS
        train = torch.utils.data.Subset(train, range(30_000))
    data = Subject(name=name, model=nn.Identity(), classes=classes, train=train, test=test)
    images = data.train_images
    with seeded(0):
        network = small_network(images.pixels.shape[1], len(classes))
        network(images.pixels[:1].float())  # the lazy layer takes its size
        model = trained(name, network, images.pixels, images.labels, steps=1500)
    robust = train_robust(data, settings=ROBUST[name], cache=CACHE)
    dark = data.test_images.pixels.float().mean(dim=(1, 2, 3)) < 40
    groups = {"darker than 40 of 255": dark.tolist()}
    return Subject(
        name=name, model=model, classes=classes, train=train, test=test, feature_network=robust, groups=groups
    )


def main(name: str, depth: int, folder: Path) -> None:
    """Print the failure modes and draw a figure of each."""
    started = time.monotonic()
    explained = subject(name)
    print(f"networks ready in {time.monotonic() - started:.0f} s", flush=True)
    labels = explained.test_images.labels
    for kind, network in (("model", explained.model), ("robust network", explained.feature_network)):
        right = (explained.classifier(model=network).predict(explained.test_images.pixels) == labels).double().mean()
        print(f"{kind}: {right:.1%} of {len(labels):,} test images", flush=True)
    explanation = explain(explained, explained.classifier(), ExplainSettings(depth=depth), cache=CACHE)
    print(repr(explanation))
    folder.mkdir(parents=True, exist_ok=True)
    for number, mode in enumerate(explanation.modes[:8]):
        (node,) = [leaf for leaf in explanation.modes.trees[mode.group].leaves() if leaf.path == mode.path]
        file = folder / f"{name}-{depth}-{number}.png"
        node_figure(explanation, mode.group, node).save(file, optimize=True)
        print(f"{file}: {mode.group}, {mode.rule}, q {mode.q_value:.2g}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
