"""The protocol of image generators."""

from typing import Protocol

from torch import Tensor


class ImageGenerator(Protocol):
    """Encodes images to latent codes and decodes latent codes to images.

    Attributes:
        hash: sha256, in hex, over everything that its output depends on; results on disk are reused while it is equal.
    """

    hash: str

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), float32 N x d each, of uint8 pixels N x C x H x W."""

    def decode(self, codes: Tensor) -> Tensor:
        """uint8 pixels N x C x H x W, as a PNG stores them, of latent codes, float32 N x d."""
