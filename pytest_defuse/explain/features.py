"""Features of images: the output of one layer of any network (Barlow, section 4)."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytest_defuse.rules.gain import Features
from pytest_defuse.runtime.cache import OTHER_OUTPUTS, UnusableError, get_or_make, writing
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_file
from pytest_defuse.runtime.fingerprint import agree, fingerprint
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.identity import Identity, fixed_images
from pytest_defuse.subject.images import content_hash

FEATURE_BATCH_SIZE = 256
"""Images in one forward pass that computes features. Our choice."""
CHECKSUM = 64
"""Bytes at the end of a file of features: a fingerprint, in hex, of its rows."""


class FeatureNetwork:
    """A network with a layer whose output describes each image by one vector.

    Args:
        classifier: a frozen copy of the network; its logits are not used.
        layer: the name of the layer in ``named_modules()``; feature maps N x F x h x w and tokens N x T x F are
            averaged over their positions. Default: the input of the last ``nn.Linear`` that the network registers,
            which is the paper's penultimate layer.

    Raises:
        DefuseError: the network has no such layer.
    """

    def __init__(self, classifier: Classifier, layer: str | None = None) -> None:
        self.classifier = classifier
        if isinstance(classifier.module, torch.jit.ScriptModule):
            raise DefuseError(
                f"{classifier.name} is TorchScript, whose layers cannot be read: give a plain torch.nn.Module with "
                "Subject(feature_network=...)."
            )
        modules = {name: module for name, module in classifier.module.named_modules() if name or layer is None}
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        if layer is None and not linear:
            raise DefuseError(
                f"{classifier.name} has no nn.Linear, whose input would be the features: name another layer with "
                "@pytest.mark.defuse_explain(layer=...)."
            )
        if layer is not None and layer not in modules:
            raise DefuseError(f"{classifier.name} has no layer {layer!r}: it has {', '.join(modules)}.")
        self._takes_input = layer is None
        self.layer = linear[-1] if layer is None else layer
        self._module = modules[self.layer]

    @property
    def name(self) -> str:
        """The layer in words: ``input of 'head.4'`` or ``output of 'layer4'``."""
        return f"{'input' if self._takes_input else 'output'} of {self.layer!r}"

    @property
    def key(self) -> str:
        """Identifies the network and layer that a feature's number belongs to: 12 hex digits."""
        return self._fingerprint[:12]

    @property
    def earlier_key(self) -> str:
        """The key in earlier versions, from weights and layer only: stores contain names of features under it."""
        return content_hash("feature names", self.classifier.hash, self.name)[:12]

    @property
    def _fingerprint(self) -> str:
        return fingerprint("feature network", network=self.classifier.fingerprint, layer=self.name)

    @cached_property
    def identity(self) -> Identity:
        """The network's and the layer's fingerprint, and the features of the fixed images."""
        key = self._fingerprint  # first, because a forward pass may change buffers
        assert self.classifier.image_shape, "the identity requires the image shape"
        images = fixed_images(self.classifier.image_shape).to(self.classifier.device).float() / 255
        with seeded(0, self.classifier.device), torch.inference_mode():
            return Identity(key, self.forward(images).cpu())

    def forward(self, images: Tensor) -> Tensor:
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
            self.classifier.forward(images)
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

    def features(self, pixels: Tensor, cache: Path | None = None, progress: Progress | None = None) -> Features:
        """The features, float32 N x F, of uint8 pixels N x C x H x W; with a cache, a read-only memory map of its file.

        Raises:
            DefuseError: there are no images, or their features cannot be computed (see :meth:`forward`).
        """
        if not len(pixels):
            raise DefuseError("There are no images to compute features of: give the subject a test set.")
        progress = progress or Progress()
        if cache is None:
            return np.concatenate(list(self._batches(pixels, progress)))
        key = fingerprint("features", version=3, network=self.identity.fingerprint, pixels=pixels)
        file = cache / f"features-{key[:16]}.npy"

        def write() -> None:
            with writing(file):
                replace_file(file, lambda temporary: self._write(temporary, pixels, progress))

        return get_or_make(file, lambda: self._stored(file), write, progress.say)

    def _write(self, path: Path, pixels: Tensor, progress: Progress) -> None:
        """Write the features of ``pixels``, those of the fixed images, and a checksum."""
        # The pixels come first: a slice of a memory map keeps the offset of the whole, so rows_of would read a slice
        # that starts later from the wrong place.
        fixed = self.identity.outputs.numpy()
        shape = (len(fixed) + len(pixels), fixed.shape[1])
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for number, batch in enumerate(self._batches(pixels, progress)):
            rows[number * FEATURE_BATCH_SIZE :][: len(batch)] = batch
        rows[len(pixels) :] = fixed
        rows.flush()
        with path.open("ab") as file:
            file.write(_checksum(rows))

    def _stored(self, path: Path) -> Features:
        fixed = self.identity.outputs
        try:
            rows: Features = np.load(path, mmap_mode="r", allow_pickle=False)
            with path.open("rb") as file:
                file.seek(-CHECKSUM, os.SEEK_END)
                if file.read() != _checksum(rows):
                    raise ValueError("other rows than those that were written")
        except (ValueError, EOFError) as error:
            raise UnusableError("is damaged") from error
        if not agree(fixed, torch.tensor(rows[-len(fixed) :])):
            raise UnusableError(OTHER_OUTPUTS.format(self.classifier.name))
        return rows[: -len(fixed)]

    @torch.inference_mode()
    def _batches(self, pixels: Tensor, progress: Progress) -> Iterator[Features]:
        with progress.task("computing features", len(pixels)) as advance:
            for chunk in pixels.split(FEATURE_BATCH_SIZE):
                yield self.forward(chunk.to(self.classifier.device).float() / 255).cpu().numpy()
                advance(len(chunk))


@contextmanager
def recorded_outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Copies of the outputs of all submodules inside the block, in the order in which they finish."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output.detach().float().clone())

    with ExitStack() as hooks:
        for part in module.modules():
            hooks.enter_context(part.register_forward_hook(keep))
        yield outputs


def _checksum(rows: Features) -> bytes:
    return fingerprint("features file", rows=rows).encode()
