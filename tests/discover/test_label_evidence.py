import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.failed_draws import FailedDraws
from pytest_defuse.discover.label_evidence import NEAREST, label_evidence
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.regions import Region

CLASSES = ("zero", "one", "two", "three")


def region(*mean: float, label: int = 1, prediction: int = 2) -> Region:
    return Region(np.array(mean), np.eye(2) * 0.1, 0.5, label, prediction, 0.5)


def training(means: list[list[float]], labels: list[int]) -> tuple[LatentImages, Tensor]:
    latent_images = LatentImages(
        indices=torch.arange(len(means)),
        labels=torch.tensor(labels),
        means=torch.tensor(means),
        logit_margins=torch.ones(len(means)),
        correct=torch.ones(len(means), dtype=torch.bool),
        centre=torch.zeros(2),
        std=torch.tensor([1.0, 2.0]),
        radius=torch.tensor(10.0),
    )
    return latent_images, latent_images.labels


def failed(*rows: tuple[float, float, int, int, int]) -> FailedDraws:
    """Failures at (x, y) with a label and a prediction, drawn around an image."""
    x, y, labels, predictions, images = zip(*rows, strict=True)
    codes = torch.tensor([x, y]).T
    numbers = [torch.tensor(column) for column in (labels, predictions, images)]
    return FailedDraws(codes, *numbers, torch.zeros(len(rows), dtype=torch.int64))


def test_distances_to_training_images_are_in_standard_deviations() -> None:
    latent_images, labels = training([[3.0, 0.0], [0.0, 4.0], [1.0, 0.0], [9.0, 9.0]], [1, 0, 2, 1])
    origin = region(0, 0)
    evidence = label_evidence(origin, [origin], failed((0, 0, 1, 2, 0)), latent_images, labels, CLASSES)
    assert evidence.nearest_images == (2, 1, 0, 3)
    assert evidence.nearest_labels == ("two", "zero", "one", "one")
    np.testing.assert_allclose(evidence.nearest_distances[:3], [1, 2, 3])


def test_only_the_nearest_images_are_listed() -> None:
    latent_images, labels = training([[float(n), 0.0] for n in range(3 * NEAREST)], [0] * (3 * NEAREST))
    origin = region(0, 0)
    evidence = label_evidence(origin, [origin], failed((0, 0, 1, 2, 0)), latent_images, labels, CLASSES)
    assert evidence.nearest_images == tuple(range(NEAREST))


def test_failures_are_counted_by_the_label_of_the_image_they_were_drawn_around() -> None:
    latent_images, labels = training([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], [1, 0, 3])
    origin, distant, other = region(0, 0), region(5, 0), region(0, 0, prediction=3)
    failures = failed(
        (0.1, 0.0, 1, 2, 0),
        (0.0, 0.2, 1, 2, 2),
        (0.2, 0.1, 1, 2, 0),
        (4.9, 0.0, 1, 2, 1),  # nearer to the other region of this error
        (0.0, 0.0, 1, 3, 1),  # another error
    )

    def sources(one: Region) -> dict[str, int]:
        regions = [origin, distant, other]
        return label_evidence(one, regions, failures, latent_images, labels, CLASSES).source_labels

    assert sources(origin) == {"one": 2, "three": 1}
    assert sources(distant) == {"zero": 1}
    assert sources(other) == {"zero": 1}
