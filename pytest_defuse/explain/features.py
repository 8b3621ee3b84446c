"""Features of images: what a network's last linear layer sees."""

import torch
from torch import Tensor, nn

from pytest_defuse.classifier import Classifier
from pytest_defuse.errors import DefuseError


def penultimate_features(classifier: Classifier, pixels: Tensor) -> Tensor:
    """The penultimate layer's output: the input of the last ``nn.Linear`` of the network (Barlow, section 4).

    Args:
        classifier: its own frozen copy of the model is run, in its batches; no hook stays on it.
        pixels: uint8, N x C x H x W.

    Returns:
        float32 N x F on the CPU.

    Raises:
        DefuseError: the model has no linear layer, does not run the last one it registers, or gives it
            something else than one vector an image; or its logits are not usable.
    """
    layers = [(name, layer) for name, layer in classifier.module.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise DefuseError(
            f"{classifier.name} has no nn.Linear: failure modes read the features that the last linear layer "
            "sees, so give a model that computes its logits with one."
        )
    name, last = layers[-1]
    where = f"the last nn.Linear of {classifier.name}" + (f", {name!r}," if name else "")
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # A copy, because the model may go on to write into its own tensor.
        seen.extend(tensor.to("cpu", torch.float32, copy=True) for tensor in inputs)

    with last.register_forward_pre_hook(keep):
        classifier.logits(pixels)
    if not seen and len(pixels):
        raise DefuseError(
            f"{where} was not called when the model ran: register the layer that computes the logits after "
            "all other linear layers."
        )
    features = torch.cat(seen) if seen else torch.empty(0, last.in_features)
    if features.shape != (len(pixels), last.in_features):
        raise DefuseError(
            f"{where} saw {tuple(features.shape)} for {len(pixels)} images: failure modes need one vector of "
            f"{last.in_features} features an image, so pool before that layer and call it once."
        )
    return features
