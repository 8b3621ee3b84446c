"""What a discovery can be told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pytest_defuse.errors import DefuseError

SHARE = {"below": 1}


@dataclass(frozen=True)
class DiscoverySettings:
    """Everything that a discovery can be told; ``@pytest.mark.defuse_discover`` takes these names.

    Attributes:
        mode: ``default`` (adaptive, with judges), ``gradient`` (the same, with gradient steps), or ``paper``.
        budget: forward passes of the model in the search, confirmations included; not in the mode ``paper``.
        draws: draws at one image: in a block, or in the mode ``paper`` in all (Q).
        noise: their standard deviation, as a share of each latent dimension's spread over the images.
        neighbour_noise: the same for draws around failures that were found.
        cap: at most so many failures of one image are kept.
        a, b: the mode ``paper`` adds noise from Beta(a, b).
        steps: gradient steps a draw in the mode ``gradient``.
        components: truncation of the mixture, for each pair of label and prediction.
        min_weight: components of less weight are dropped (the papers' epsilon).
        min_failures: components that stand for fewer failures are dropped.
        tau: scale of a region's covariance for fresh draws.
        rho: a region is a candidate when its failure rate is surely above this.
        confirmations: fresh draws that decide it.
        max_overlap: regions of one error whose Bhattacharyya coefficient is larger are merged.
        images: tiles in each of a scenario's two sheets.
        candidates: at most so many candidates, those that cover most images first.
        confidence: softmax probability from which a judge is sure.
        latent, beta, generator_steps: the built-in generator.
        worst_reconstruction: the least accuracy on reconstructions, as a share of the accuracy on images.
    """

    mode: str = "default"
    budget: int = 60_000
    draws: int = 10
    noise: float = 0.4
    neighbour_noise: float = 0.3
    cap: int = 10
    a: float = 50.0
    b: float = 50.0
    steps: int = 5
    components: int = 5
    min_weight: float = field(default=0.01, metadata=SHARE)
    min_failures: int = 30
    tau: float = 0.5
    rho: float = field(default=0.5, metadata=SHARE)
    confirmations: int = 256
    max_overlap: float = field(default=0.3, metadata=SHARE)
    images: int = 256
    candidates: int = 12
    confidence: float = field(default=0.9, metadata=SHARE)
    latent: int = 16
    beta: float = 0.5
    generator_steps: int = 3000
    worst_reconstruction: float = field(default=0.85, metadata=SHARE)

    @staticmethod
    def of(given: Mapping[str, Any]) -> "DiscoverySettings":
        """The defaults of the mode, changed where ``given`` says so.

        Raises:
            DefuseError: a name that is no setting, an unknown mode, or a value of another type or out of range.
        """
        mode = given.get("mode", "default")
        if mode not in MODES:
            raise DefuseError(f"defuse_discover(mode={mode!r}): the modes are {', '.join(MODES)}.")
        known = {field.name: field for field in fields(DiscoverySettings)}
        for name, value in given.items():
            if name not in known:
                raise DefuseError(f"defuse_discover has no setting {name!r}: it has {', '.join(known)}.")
            if name == "mode":
                continue
            kinds = int if known[name].type is int else (int, float)
            most = known[name].metadata.get("below", math.inf)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < most:
                range_words = "above 0" if most == math.inf else f"between 0 and {most}"
                raise DefuseError(f"defuse_discover({name}={value!r}): give a number {range_words}.")
        return replace(MODES[mode], **given)


MODES = {
    "default": DiscoverySettings(),
    "gradient": DiscoverySettings(mode="gradient"),
    "paper": DiscoverySettings(mode="paper", draws=500, cap=100, components=100),
}
