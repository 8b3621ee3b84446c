"""What the model and the judges say of decoded draws: screened fast, confirmed in float32."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pytest_defuse.discover.generator import TrainedVAE
from pytest_defuse.discover.judges import Judges
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.batches import GRANULE, Batches
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.devices import trains_in_bfloat16
from pytest_defuse.subject.image_generator import ImageGenerator

CPU_BATCHES = (64, 128, 256, 512)
GPU_BATCHES = (1024, 2048, 4096, 8192)
TRIAL_SECONDS = 0.15


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What was said of n draws.

    Attributes:
        labels: int64 n, what the image shows.
        predictions: int64 n, what the model says.
        failed: bool n, whether that is a failure.
    """

    labels: Tensor
    predictions: Tensor
    failed: Tensor


@dataclass(frozen=True)
class Compute:
    """How draws are screened: the type of convolutions and products, their memory format, images a batch."""

    fast: torch.dtype = torch.float32
    layout: torch.memory_format = torch.contiguous_format
    batch: int = 256


class Evaluator:
    """Decodes latent codes and says which of their images the model gets wrong.

    With judges, a draw fails when they are sure of what it shows and the model says something else;
    without (the papers' mode), when the model does not say the class of the source image.

    :meth:`screen` computes in the device's fast type; what counts is :meth:`verdicts`, in float32. Both
    are on the uint8 pixels that a PNG holds. On one machine they do not depend on batch size or order
    (bit-exact on the CPUs tried); between devices they can differ where a draw lies within rounding of
    a decision.
    """

    def __init__(
        self, model: Classifier, judges: Judges | None, generator: ImageGenerator, compute: Compute | None = None
    ) -> None:
        self.model = model
        self.judges = judges
        self.generator = generator
        self.use(compute or Compute())

    def use(self, compute: Compute) -> None:
        """Screen like this from now on."""
        self.compute = compute
        classifiers = (self.model, *(self.judges.panel if self.judges else ()))
        for classifier in classifiers:
            classifier.module.to(memory_format=compute.layout)
        own = (self.generator,) if isinstance(self.generator, TrainedVAE) else ()
        for part in (*classifiers, *own):
            part.batches = Batches(compute.batch, GRANULE)

    def verdicts(self, codes: Tensor, sources: Tensor) -> Verdicts:
        """In float32: codes float32 n x d; sources int64 n, classes of the images that the draws started from."""
        parts = [
            self._judged(some, there)
            for some, there in zip(codes.split(self.compute.batch), sources.split(self.compute.batch), strict=True)
            if len(some)
        ]
        if not parts:
            return Verdicts(sources, sources, torch.zeros(0, dtype=torch.bool))
        return Verdicts(*(torch.cat(columns) for columns in zip(*(vars(p).values() for p in parts), strict=True)))

    def screen(self, codes: Tensor, sources: Tensor) -> Tensor:
        """Whether each draw looks like a failure, bool n, in the fast type."""
        with self._fast():
            return self.verdicts(codes, sources).failed

    def logits(self, codes: Tensor) -> Tensor:
        """The model's logits of decoded codes, float32 n x classes, in the fast type."""
        with self._fast():
            return torch.cat([self.model.logits(self.generator.decode(c)) for c in codes.split(self.compute.batch)])

    def shown(self, codes: Tensor, label: int) -> Tensor:
        """Whether each code's image shows the class, bool n: the judges are sure of it, whatever the model says."""
        if self.judges is None:
            return torch.ones(len(codes), dtype=torch.bool)
        parts = [self.judges.verdicts(self.generator.decode(some)) for some in codes.split(self.compute.batch)]
        return torch.cat([sure & (seen == label) for seen, sure in parts])

    def fastest(self, codes: Tensor, sources: Tensor) -> Compute:
        """How to screen draws such as these.

        Type and layout are the best that device and model can do, since they decide about roundings; only the
        size of a batch, on which nothing depends, is measured, for a second or two.
        """
        best = torch.bfloat16 if trains_in_bfloat16(self.model.device) else torch.float32
        sizes = CPU_BATCHES if self.model.device.type == "cpu" else GPU_BATCHES
        kinds = (Compute(best, torch.channels_last), Compute(best), Compute())
        kind = next((kind for kind in kinds if self._rate(kind, codes, sources)), Compute())
        return max((replace(kind, batch=size) for size in sizes), key=lambda kind: self._rate(kind, codes, sources))

    def _rate(self, compute: Compute, codes: Tensor, sources: Tensor) -> float:
        """Draws a second; 0 for a way that this model cannot go."""
        before, repeats = self.compute, -(-compute.batch // len(codes))
        codes, sources = codes.repeat(repeats, 1)[: compute.batch], sources.repeat(repeats)[: compute.batch]
        try:
            self.use(compute)
            self.screen(codes, sources)
            start, rounds = time.perf_counter(), 0
            while (seconds := time.perf_counter() - start) < TRIAL_SECONDS or rounds < 2:
                self.screen(codes, sources)
                rounds += 1
        except (RuntimeError, DefuseError):  # a .view() that needs contiguous features, or NaN in bfloat16, say
            return 0.0
        finally:
            self.use(before)
        return rounds * len(codes) / seconds

    def _judged(self, codes: Tensor, sources: Tensor) -> Verdicts:
        pixels = self.generator.decode(codes)
        predictions = self.model.predict(pixels)
        if self.judges is None:
            return Verdicts(sources, predictions, predictions != sources)
        labels, failed = self.judges.contradict(pixels, predictions)
        return Verdicts(labels, predictions, failed)

    def _fast(self) -> torch.autocast:
        fast = self.compute.fast
        return torch.autocast(self.model.device.type, dtype=fast, enabled=fast != torch.float32)
