"""Models on uint8 pixels, which never change the user's model."""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from pytest_defuse.runtime.determinism import full_float32, seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.subject.batches import BatchRunner
from pytest_defuse.subject.identity import Identity, fixed_images, model_fingerprint, weights_hash
from pytest_defuse.subject.preprocessing import last_line, normalized


class Classifier:
    """A frozen copy of a model, in eval mode on a device.

    The model is copied, so the user's keeps its weights, buffers, training flag and gradient flags.

    Args:
        model: normalised images, float N x C x H x W -> logits, float N x class_count.
        class_count: number of classes.
        image_shape: channels, height and width of the images; the identity requires it.
        normalize: function of float images in [0, 1] that is applied before the model.
        device: device of the copy.
        name: names the model in messages.

    Raises:
        DefuseError: the model cannot be copied to the device.
    """

    def __init__(
        self,
        model: nn.Module,
        class_count: int,
        *,
        image_shape: Sequence[int] | None = None,
        normalize: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
        name: str = "the model",
    ) -> None:
        self.module = _frozen_copy(model, device, name)
        self.batches = BatchRunner()
        self.class_count = class_count
        self.image_shape = image_shape
        self.normalize = normalize
        self.device = torch.device(device)
        self.name = name
        self._dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """Logits, float32 N x class_count on the CPU, of uint8 pixels N x C x H x W; without TensorFloat-32.

        Raises:
            DefuseError: the model does not return finite logits, N x class_count.
        """
        if not len(pixels):  # some models fail on an empty batch
            return torch.empty(0, self.class_count)
        with full_float32():
            logits = self.batches(lambda batch: self._checked(self.forward_pixels(batch), len(batch)), pixels)
        if not torch.isfinite(logits).all():
            bad = int((~torch.isfinite(logits)).any(dim=1).sum())
            raise DefuseError(
                f"{self.name} returned NaN or infinite logits for {bad} of {len(logits)} images: "
                "check its checkpoint and Subject(normalize=...)."
            )
        return logits

    def predict(self, pixels: Tensor) -> Tensor:
        """Predicted class indices, int64 N, of uint8 pixels N x C x H x W."""
        return self.logits(pixels).argmax(dim=1)

    def forward_pixels(self, pixels: Tensor) -> Tensor:
        """The model's output for one batch of uint8 pixels, on its device."""
        return self.forward(pixels.to(self.device).float() / 255)

    def forward(self, images: Tensor) -> Tensor:
        """The model's output for float images in [0, 1] on its device; differentiable.

        Raises:
            DefuseError: ``normalize`` or the model raises an error.
        """
        inputs = normalized(self.normalize, images, self.name).to(self._dtype)
        try:
            output: Tensor = self.module(inputs)
        except (DefuseError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the user's model
            origin = "" if self.normalize is None else ", the output of Subject(normalize=...)"
            raise DefuseError(
                f"{self.name} fails on {inputs.dtype} input of shape {tuple(inputs.shape)}{origin} "
                f"({last_line(error)}): check that it accepts these images."
            ) from error
        return output

    @cached_property
    def fingerprint(self) -> str:
        """sha256, in hex, over state, architecture and ``normalize``; errors as for :func:`model_fingerprint`."""
        assert self.image_shape, "the identity requires the image shape"
        with seeded(0, self.device):
            return model_fingerprint(self.module, self.normalize, self.image_shape, device=self.device, name=self.name)

    @cached_property
    def identity(self) -> Identity:
        """The fingerprint, and the logits of the fixed images.

        Raises:
            DefuseError: as for :attr:`fingerprint` and :meth:`logits`, but NaN and infinite logits are allowed.
        """
        fingerprint = self.fingerprint  # first, because a forward pass may change buffers
        assert self.image_shape, "the identity requires the image shape"
        with seeded(0, self.device), full_float32(), torch.inference_mode():
            images = fixed_images(self.image_shape)
            outputs = self.batches(lambda batch: self._checked(self.forward_pixels(batch), len(batch)), images)
            return Identity(fingerprint, outputs)

    @cached_property
    def hash(self) -> str:
        """The hash of the state only, which identifies the model in a baseline with format 2."""
        return weights_hash(self.module)

    def _checked(self, output: Tensor, count: int) -> Tensor:
        if not isinstance(output, Tensor):
            raise DefuseError(
                f"{self.name} returned a {type(output).__name__}: it must return its logits only, a tensor of shape "
                f"N x {self.class_count}."
            )
        if output.shape != (count, self.class_count):
            raise DefuseError(
                f"{self.name} returned shape {tuple(output.shape)} for {self.class_count} classes and {count} images: "
                f"its logits must be N x {self.class_count}, in the order of Subject(classes=...)."
            )
        return output.float().cpu()


def _frozen_copy(model: nn.Module, device: torch.device | str, name: str) -> nn.Module:
    try:
        module = copy.deepcopy(model)
        for parameter in module.parameters():  # TorchScript has no Module.requires_grad_
            # A copy of a TorchScript module has parameters that are not leaves.
            parameter.requires_grad_(False) if parameter.is_leaf else parameter.detach_()
        module.to(device).eval()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the user's model
        raise DefuseError(
            f"{name} cannot be copied to {device} ({last_line(error)}). Tests run on a copy, so that your model never "
            "changes: load its weights first, and remove what cannot be copied, such as open files or tensors with a "
            "grad_fn, from its attributes."
        ) from error
    return module
