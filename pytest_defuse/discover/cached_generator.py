"""A generator that an earlier discovery trained, found again by what a scenario records of it."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from pytest_defuse.discover.generator import BetaVAE, GeneratorSettings, TrainedVAE
from pytest_defuse.runtime.errors import DefuseError


def stored_generator(cache: Path, sha256: str, shape: Sequence[int], latent: int) -> TrainedVAE:
    """The cached generator whose weights have this hash.

    Args:
        shape: channels, height and width of its images.
        latent: dimensions of its codes.

    Raises:
        DefuseError: the cache holds no such generator.
    """
    kinds = (GeneratorSettings(latent=latent), GeneratorSettings.paper(1, latent=latent))
    for file, settings in product(sorted(cache.glob("generator-*.safetensors")), kinds):
        with suppress(FileNotFoundError, SafetensorError, RuntimeError):  # damaged, or of another shape
            network = BetaVAE(shape, settings)
            network.load_state_dict(load_file(file))
            if (generator := TrainedVAE(network, "cpu")).hash == sha256:
                return generator
    raise DefuseError(
        f"The generator {sha256[:12]} is not in {cache}: run pytest --defuse-discover on the machine that found the "
        "scenario, with its seed and data, or copy generator-*.safetensors from that machine's cache."
    )
