"""Verdicts on draws by the model and by judges (reference classifiers that give a second opinion)."""

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from pytest_defuse.discover.compute import CPU_BATCH_SIZES, Compute, fastest
from pytest_defuse.discover.failed_draws import Columns
from pytest_defuse.discover.generator import TrainedVAE
from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.image_generator import ImageGenerator
from pytest_defuse.subject.images import LabelledImages


@dataclass(frozen=True, eq=False)
class Verdicts(Columns):
    """Verdicts on n draws.

    With judges, a draw fails if they confidently agree on a label and the model predicts another class. Without judges
    (mode ``paper``), it fails if the model does not predict the label of the source image.

    Attributes:
        labels: int64 n, what the image shows.
        predictions: int64 n, the model's predictions.
        failed: bool n, whether the draw is a failure.
        judge_passes: int64 n, the number of judges that evaluated the draw.
    """

    labels: Tensor
    predictions: Tensor
    failed: Tensor
    judge_passes: Tensor


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Decodes latent codes in batches and evaluates the images.

    :meth:`screen` computes in the fastest type of the device; :meth:`verdicts`, in float32, decides what is kept.
    Both read the uint8 pixels that a PNG stores. On one machine the results do not depend on batch size or order
    (bit-exact on the CPUs tried). Between devices they can differ where a draw lies within rounding of a decision.

    An evaluator sets the memory format and the batches of its networks when it is created: of several evaluators with
    the same networks, use the last one.
    """

    model: Classifier
    judges: Judges | None
    generator: ImageGenerator
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        built_in = (self.generator,) if isinstance(self.generator, TrainedVAE) else ()
        self.compute.set_up((self.model, *(self.judges.panel if self.judges else ()), *built_in))

    def fastest(self, images: LabelledImages, indices: Tensor) -> "Evaluator":
        """The same evaluator with the fastest way to screen draws around the images at ``indices``, int64.

        Raises:
            DefuseError: the generator encodes images as codes that are not finite.
        """
        first = indices[: CPU_BATCH_SIZES[-1]]
        codes, labels = self.generator.encode(images.pixels[first])[0].cpu(), images.labels[first]
        if not codes.isfinite().all():
            raise DefuseError("The generator encodes images as NaN or infinite codes: train it again.")

        def trial(compute: Compute) -> partial[Verdicts]:
            rows = torch.arange(compute.batch_size) % len(codes)
            return partial(replace(self, compute=compute).screen, codes[rows], labels[rows])

        return replace(self, compute=fastest(self.model.device, trial))

    def verdicts(self, codes: Tensor, source_labels: Tensor) -> Verdicts:
        """Verdicts in float32.

        Args:
            codes: float32 n x d.
            source_labels: int64 n, labels of the images that the draws started from.
        """
        if not len(codes):
            return Verdicts(source_labels, source_labels, source_labels.bool(), source_labels)
        batches = zip(self.compute.batches(codes), self.compute.batches(source_labels), strict=True)
        return Verdicts.concatenate([self._verdicts(z, labels) for z, labels in batches])

    def _verdicts(self, codes: Tensor, source_labels: Tensor) -> Verdicts:
        pixels = self.generator.decode(codes)
        predictions = self.model.predict(pixels)
        if self.judges is None:
            return Verdicts(source_labels, predictions, predictions != source_labels, torch.zeros_like(predictions))
        labels, failed, judge_passes = self.judges.contradict(pixels, predictions)
        return Verdicts(labels, predictions, failed, judge_passes)

    def screen(self, codes: Tensor, source_labels: Tensor) -> Verdicts:
        """Preliminary verdicts, in the fast type; arguments as for :meth:`verdicts`."""
        with self.compute.autocast(self.model.device):
            return self.verdicts(codes, source_labels)

    def logits(self, codes: Tensor) -> Tensor:
        """The model's logits for decoded codes, float32 n x classes, in the fast type."""
        with self.compute.autocast(self.model.device):
            return torch.cat([self.model.logits(self.generator.decode(z)) for z in self.compute.batches(codes)])

    def confidently_shows(self, codes: Tensor, label: int) -> Tensor:
        """Whether the judges confidently see the label in each decoded image, bool n, in float32."""
        assert self.judges is not None
        verdicts = [self.judges.labels(self.generator.decode(z)) for z in self.compute.batches(codes)]
        return torch.cat([confident & (labels == label) for labels, confident in verdicts])
