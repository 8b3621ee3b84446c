"""Features of images: the output of one layer of any network (Barlow, section 4)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytest_defuse.rules.gain import Features
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_file, replace_text
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier

FEATURE_BATCH_SIZE = 256
"""Images in one forward pass that reads features. Our choice."""


class FeatureNetwork:
    """A network with a layer whose output describes each image by one vector.

    Args:
        classifier: a frozen copy of the network; its logits are not used, and its hooks are removed after each pass.
        layer: the name of the layer in ``named_modules()``; feature maps N x F x h x w and tokens N x T x F are
            averaged over their positions. Default: the input of the last ``nn.Linear`` that the network registers,
            which is the paper's penultimate layer.

    Raises:
        DefuseError: the network has no such layer.
    """

    def __init__(self, classifier: Classifier, layer: str | None = None) -> None:
        self.classifier = classifier
        modules = {name: module for name, module in classifier.module.named_modules() if name or layer is None}
        if layer is None:
            linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
            if not linear:
                raise DefuseError(
                    f"{classifier.name} has no nn.Linear, whose input would be the features: name another layer with "
                    "@pytest.mark.defuse_explain(layer=...)."
                )
            self.layer, self._takes_input = linear[-1], True
        elif layer in modules:
            self.layer, self._takes_input = layer, False
        else:
            raise DefuseError(f"{classifier.name} has no layer {layer!r}: it has {', '.join(modules)}.")
        self._module = modules[self.layer]

    @property
    def name(self) -> str:
        """The layer in words: ``input of 'head.4'`` or ``output of 'layer4'``."""
        return f"{'input' if self._takes_input else 'output'} of {self.layer!r}"

    @property
    def key(self) -> str:
        """Identifies the network and layer that a feature's number belongs to: 12 hex digits."""
        return fingerprint("feature names", network=self.classifier.hash, layer=self.name)[:12]

    def of(self, images: Tensor) -> Tensor:
        """The features, float32 N x F on the network's device, of float images N x C x H x W in [0, 1]; differentiable.

        Raises:
            DefuseError: the layer does not run exactly once, or does not output one vector of numbers for each image.
        """
        recorded: list[Any] = []

        def keep(_: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
            values = inputs[0] if self._takes_input else output
            # A copy, because the network may write into its own tensor later.
            recorded.append(values.float().clone() if isinstance(values, Tensor) else values)

        hooked = self._module.register_forward_pre_hook if self._takes_input else self._module.register_forward_hook
        with hooked(keep):
            self.classifier.read(images)
        where = f"the {self.name} of {self.classifier.name}"
        if len(recorded) != 1:
            raise DefuseError(
                f"{where} was computed {len(recorded)} times in one forward pass: name a layer that runs once, with "
                "@pytest.mark.defuse_explain(layer=...)."
            )
        features = recorded[0]
        if isinstance(features, Tensor) and not self._takes_input and features.ndim in (3, 4):
            features = features.flatten(2).mean(dim=2) if features.ndim == 4 else features.mean(dim=1)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise DefuseError(
                f"{where} is {shape} for {len(images)} images, but failure modes need one vector for each image: name "
                "another layer with @pytest.mark.defuse_explain(layer=...)."
            )
        if not torch.isfinite(features).all():
            raise DefuseError(f"{where} is NaN or infinite for some images: check the network's weights.")
        return features

    def read(self, pixels: Tensor, cache: Path | None = None, progress: Progress | None = None) -> Features:
        """The features of uint8 pixels N x C x H x W, a batch at a time.

        Args:
            cache: folder of stored features.

        Returns:
            float32 N x F; with a cache, a read-only memory map of its file.

        Raises:
            DefuseError: there are no images, or their features cannot be read (see :meth:`of`).
        """
        if not len(pixels):
            raise DefuseError("There are no images to read features from: give the subject a test set.")
        if cache is None:
            return np.concatenate(list(self._batches(pixels, progress or Progress())))
        # Equal weights may serve different architectures or preprocessing: their first features differ.
        first = next(self._batches(pixels[:2], Progress()))
        key = fingerprint(
            "features", version=1, network=self.classifier.hash, layer=self.name, first=first, pixels=pixels
        )
        file = cache / f"features-{key[:16]}.npy"
        try:
            cached: Features = np.load(file, mmap_mode="r", allow_pickle=False)
            if cached.shape == (len(pixels), first.shape[1]):
                return cached
        except (OSError, ValueError):  # missing or damaged
            pass
        if not (ignore := cache / ".gitignore").exists():
            replace_text(ignore, "*\n")
        replace_file(file, lambda temporary: self._write(temporary, pixels, first.shape[1], progress or Progress()))
        stored: Features = np.load(file, mmap_mode="r", allow_pickle=False)
        return stored

    def _write(self, path: Path, pixels: Tensor, width: int, progress: Progress) -> None:
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(pixels), width))
        start = 0
        for batch in self._batches(pixels, progress):
            file[start : start + len(batch)] = batch
            start += len(batch)
        file.flush()

    @torch.inference_mode()
    def _batches(self, pixels: Tensor, progress: Progress) -> Iterator[Features]:
        with progress.task("reading features", len(pixels)) as advance:
            for chunk in pixels.split(FEATURE_BATCH_SIZE):
                yield self.of(chunk.to(self.classifier.device).float() / 255).cpu().numpy()
                advance(len(chunk))


@contextmanager
def recorded_outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Copies of the outputs of all submodules inside the block, in the order in which they finish."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output.detach().float().clone())

    handles = [part.register_forward_hook(keep) for part in module.modules()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
