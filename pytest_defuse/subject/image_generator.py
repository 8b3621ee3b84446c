"""What the search needs of an image generator."""

from typing import Protocol

from torch import Tensor


class ImageGenerator(Protocol):
    """Encodes images to latent codes and decodes latent codes to images.

    Attributes:
        hash: sha256 in hex over all that its output depends on: a key of what is kept on disk.
    """

    hash: str

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), float32 N x d each, of uint8 pixels N x C x H x W."""

    def decode(self, codes: Tensor) -> Tensor:
        """uint8 pixels N x C x H x W of latent codes, float32 N x d: what a PNG of the image would hold."""
