"""What counts as a failure: the model's prediction on an image against what the image shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pytest_defuse.discover.judges import Judges
from pytest_defuse.subject.classifier import Classifier


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Verdicts on n draws.

    Attributes:
        labels: int64 n, what the image shows.
        predictions: int64 n, the model's predictions.
        failed: bool n, whether the draw is a failure.
    """

    labels: Tensor
    predictions: Tensor
    failed: Tensor

    @staticmethod
    def on(pixels: Tensor, source_labels: Tensor, model: Classifier, judges: Judges | None) -> "Verdicts":
        """Verdicts on decoded images.

        With judges, a draw fails if they confidently agree on a label and the model predicts another class. Without
        judges (mode ``paper``), it fails if the model does not predict the label of the source image.

        Args:
            pixels: uint8 n x C x H x W, exactly what a PNG stores.
            source_labels: int64 n, labels of the images that the draws started from.
        """
        predictions = model.predict(pixels)
        if judges is None:
            return Verdicts(source_labels, predictions, predictions != source_labels)
        labels, failed = judges.contradict(pixels, predictions)
        return Verdicts(labels, predictions, failed)

    @staticmethod
    def concatenate(parts: "Sequence[Verdicts]") -> "Verdicts":
        """All parts as one, in order."""
        if not parts:
            none = torch.zeros(0, dtype=torch.int64)
            return Verdicts(none, none, none.bool())
        return Verdicts(*(torch.cat(columns) for columns in zip(*(vars(p).values() for p in parts), strict=True)))


def confidently_shows(pixels: Tensor, label: int, judges: Judges | None) -> Tensor:
    """Whether the judges confidently see the label in each image, bool n; without judges always.

    The prediction of the model does not matter.
    """
    if judges is None:
        return torch.ones(len(pixels), dtype=torch.bool)
    labels, confident = judges.labels(pixels)
    return confident & (labels == label)
