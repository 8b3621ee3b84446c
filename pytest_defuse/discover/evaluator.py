"""Verdicts on draws, and in which precision, memory format and batches they are computed."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pytest_defuse.discover.failed_draws import Columns
from pytest_defuse.discover.generator import TrainedVAE
from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.batches import BATCH_MULTIPLE, BatchRunner
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from pytest_defuse.subject.image_generator import ImageGenerator

CPU_BATCH_SIZES = (64, 128, 256, 512)
"""Candidates for the batch size. Measured on 2 cores: 128 was fastest for a bare loop in bfloat16 (6,600 draws/s),
1,024 nearly half as fast."""
GPU_BATCH_SIZES = (1024, 2048, 4096, 8192)
"""Candidates on a GPU, which smaller batches leave idle."""
TRIAL_SECONDS = 0.15
"""How long each candidate is timed: the trials together take a second or two."""


@dataclass(frozen=True)
class Compute:
    """How draws are screened: the type of autocast, the format of the classifiers' weights, and images per batch."""

    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format
    batch_size: int = 256


@dataclass(frozen=True, eq=False)
class Verdicts(Columns):
    """Verdicts on n draws.

    With judges, a draw fails if they confidently agree on a label and the model predicts another class. Without judges
    (mode ``paper``), it fails if the model does not predict the label of the source image.

    Attributes:
        labels: int64 n, what the image shows.
        predictions: int64 n, the model's predictions.
        failed: bool n, whether the draw is a failure.
    """

    labels: Tensor
    predictions: Tensor
    failed: Tensor


class Evaluator:
    """Decodes latent codes in batches and evaluates the images.

    :meth:`screen` computes in the fastest type of the device; what is kept is decided by :meth:`verdicts`, in float32.
    Both read the uint8 pixels that a PNG stores. On one machine the results do not depend on batch size or order
    (bit-exact on the CPUs tried). Between devices they can differ where a draw lies within rounding of a decision.
    """

    def __init__(
        self, model: Classifier, judges: Judges | None, generator: ImageGenerator, compute: Compute | None = None
    ) -> None:
        self.model = model
        self.judges = judges
        self.generator = generator
        self.use(compute or Compute())

    def use(self, compute: Compute) -> None:
        """Set how draws are screened from now on."""
        self.compute = compute
        classifiers = (self.model, *(self.judges.panel if self.judges else ()))
        for classifier in classifiers:
            classifier.module.to(memory_format=compute.memory_format)
        built_in = (self.generator,) if isinstance(self.generator, TrainedVAE) else ()
        for network in (*classifiers, *built_in):
            network.batches = BatchRunner(compute.batch_size, BATCH_MULTIPLE)

    def verdicts(self, codes: Tensor, source_labels: Tensor) -> Verdicts:
        """Verdicts in float32.

        Args:
            codes: float32 n x d.
            source_labels: int64 n, labels of the images that the draws started from.
        """
        if not len(codes):
            return Verdicts(source_labels, source_labels, source_labels.bool())
        batches = zip(self._batches(codes), self._batches(source_labels), strict=True)
        return Verdicts.concatenate([self._verdicts(z, labels) for z, labels in batches])

    def _verdicts(self, codes: Tensor, source_labels: Tensor) -> Verdicts:
        pixels = self.generator.decode(codes)
        predictions = self.model.predict(pixels)
        if self.judges is None:
            return Verdicts(source_labels, predictions, predictions != source_labels)
        labels, failed = self.judges.contradict(pixels, predictions)
        return Verdicts(labels, predictions, failed)

    def screen(self, codes: Tensor, source_labels: Tensor) -> Tensor:
        """Whether each draw looks like a failure, bool n, in the fast type; arguments as for :meth:`verdicts`."""
        with self._autocast():
            return self.verdicts(codes, source_labels).failed

    def logits(self, codes: Tensor) -> Tensor:
        """The model's logits for decoded codes, float32 n x classes, in the fast type."""
        with self._autocast():
            return torch.cat([self.model.logits(self.generator.decode(z)) for z in self._batches(codes)])

    def confidently_shows(self, codes: Tensor, label: int) -> Tensor:
        """Whether the judges confidently see the label in each decoded image, bool n, in float32."""
        assert self.judges is not None
        verdicts = [self.judges.labels(self.generator.decode(z)) for z in self._batches(codes)]
        return torch.cat([confident & (labels == label) for labels, confident in verdicts])

    def fastest(self, codes: Tensor, source_labels: Tensor) -> Compute:
        """The fastest way to screen such draws.

        Type and memory format affect rounding, so they are not timed: they are the best that device and model
        support. The results do not depend on the batch size, so that is timed.
        """
        best = torch.bfloat16 if trains_in_bfloat16(self.model.device) else torch.float32
        sizes = CPU_BATCH_SIZES if self.model.device.type == "cpu" else GPU_BATCH_SIZES
        preferred = (Compute(best, torch.channels_last), Compute(best), Compute())
        supported = next((c for c in preferred if self._draws_per_second(c, codes, source_labels)), Compute())
        return max(
            (replace(supported, batch_size=size) for size in sizes),
            key=lambda compute: self._draws_per_second(compute, codes, source_labels),
        )

    def _draws_per_second(self, compute: Compute, codes: Tensor, source_labels: Tensor) -> float:
        """The measured speed; 0 if the model does not support ``compute``."""
        before, size = self.compute, compute.batch_size
        repeats = -(-size // len(codes))
        codes, source_labels = codes.repeat(repeats, 1)[:size], source_labels.repeat(repeats)[:size]
        try:
            self.use(compute)
            self.screen(codes, source_labels)
            start, rounds = time.perf_counter(), 0
            while (seconds := time.perf_counter() - start) < TRIAL_SECONDS or rounds < 2:
                self.screen(codes, source_labels)
                rounds += 1
        except (RuntimeError, DefuseError):  # for example .view() on channels_last features, or NaN in bfloat16
            return 0.0
        finally:
            self.use(before)
        return rounds * len(codes) / seconds

    def _batches(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, self.compute.batch_size)

    def _autocast(self) -> torch.autocast:
        dtype = self.compute.dtype
        return torch.autocast(self.model.device.type, dtype=dtype, enabled=dtype != torch.float32)
