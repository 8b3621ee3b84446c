"""Finding the generator that an earlier discovery trained, by the hash that a scenario records."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from pytest_defuse.discover.generator import BetaVAE, GeneratorSettings, TrainedVAE
from pytest_defuse.runtime.errors import DefuseError


def cached_generator(cache: Path, sha256: str, shape: Sequence[int], latent_dim: int) -> TrainedVAE:
    """Load the built-in generator whose weights have this hash.

    Args:
        cache: folder of trained networks.
        sha256: ``TrainedVAE.hash`` of the generator, in hex.
        shape: channels, height and width of its images.
        latent_dim: dimensions of its codes.

    Raises:
        DefuseError: the cache does not contain the generator.
    """
    kinds = (GeneratorSettings(latent_dim=latent_dim), GeneratorSettings.paper(1, latent_dim=latent_dim))
    for file, settings in product(sorted(cache.glob("generator-*.safetensors")), kinds):
        with suppress(FileNotFoundError, SafetensorError, RuntimeError):  # damaged, or of another shape
            network = BetaVAE(shape, settings)
            network.load_state_dict(load_file(file))
            if (generator := TrainedVAE(network, "cpu")).hash == sha256:
                return generator
    raise DefuseError(
        f"The generator {sha256[:12]} is not in {cache}: run pytest --defuse-discover on the machine that found the "
        "scenario, with the same seed and data, or copy generator-*.safetensors from its cache."
    )
