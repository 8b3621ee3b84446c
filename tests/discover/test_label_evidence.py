import numpy as np
import torch

from pytest_defuse.discover.failed_draws import Failures
from pytest_defuse.discover.label_evidence import NEAREST, evidence_for
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.regions import Region
from pytest_defuse.subject.images import LabelledImages


def region(*mean: float, label: int = 1, prediction: int = 2) -> Region:
    return Region(np.array(mean), np.eye(2) * 0.1, 0.5, label, prediction, 0.5)


def training(means: list[list[float]], labels: list[int]) -> tuple[LatentImages, LabelledImages]:
    located = LatentImages(
        images=torch.arange(len(means)),
        labels=torch.tensor(labels),
        means=torch.tensor(means),
        margin=torch.ones(len(means)),
        right=torch.ones(len(means), dtype=torch.bool),
        centre=torch.zeros(2),
        spread=torch.tensor([1.0, 2.0]),
        reach=torch.tensor(10.0),
    )
    return located, LabelledImages(torch.zeros(len(means), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels))


def failed(*rows: tuple[float, float, int, int, int]) -> Failures:
    """Failures of codes x, y with label and prediction, drawn around an image."""
    x, y, labels, predictions, images = zip(*rows, strict=True)
    codes = torch.tensor([x, y]).T
    numbers = [torch.tensor(column) for column in (labels, predictions, images)]
    return Failures(codes, *numbers, torch.zeros(len(rows), dtype=torch.int64))


def test_the_nearest_training_images_are_measured_in_standard_deviations() -> None:
    located, images = training([[3.0, 0.0], [0.0, 4.0], [1.0, 0.0], [9.0, 9.0]], [1, 0, 2, 1])
    here = region(0, 0)
    found = evidence_for(here, [here], failed((0, 0, 1, 2, 0)), located, images)
    assert found.images == (2, 1, 0, 3)
    assert found.labels == (2, 0, 1, 1)
    np.testing.assert_allclose(found.distances[:3], [1, 2, 3])


def test_only_the_nearest_are_kept() -> None:
    located, images = training([[float(n), 0.0] for n in range(3 * NEAREST)], [0] * (3 * NEAREST))
    here = region(0, 0)
    found = evidence_for(here, [here], failed((0, 0, 1, 2, 0)), located, images)
    assert found.images == tuple(range(NEAREST))


def test_failures_are_counted_by_the_label_of_the_image_they_were_drawn_around() -> None:
    located, images = training([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], [1, 0, 3])
    here, there, other = region(0, 0), region(5, 0), region(0, 0, prediction=3)
    failures = failed(
        (0.1, 0.0, 1, 2, 0),
        (0.0, 0.2, 1, 2, 2),
        (0.2, 0.1, 1, 2, 0),
        (4.9, 0.0, 1, 2, 1),  # nearer to the other region of this error
        (0.0, 0.0, 1, 3, 1),  # another error
    )
    regions = [here, there, other]
    assert evidence_for(here, regions, failures, located, images).sources == ((1, 2), (3, 1))
    assert evidence_for(there, regions, failures, located, images).sources == ((0, 1),)
    assert evidence_for(other, regions, failures, located, images).sources == ((0, 1),)
