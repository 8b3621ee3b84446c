"""What a discovery can be told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from pytest_defuse.errors import DefuseError

CHOICES = {"clustering": ("joint", "plain"), "backend": ("torch", "scikit-learn")}


@dataclass(frozen=True)
class DiscoverySettings:
    """Everything that a discovery can be told; ``@pytest.mark.defuse_discover`` takes these names.

    Attributes:
        budget: draws of the first round, all images together.
        draws: draws at one image.
        noise: their standard deviation, as a share of each latent dimension's spread over the images.
        cap: at most so many failures of one image in each round.
        neighbours, neighbour_noise: draws around each failure of the first round.
        clustering: ``joint`` (a region is one kind of error) or ``plain`` (the paper's: codes alone).
        components: truncation of the mixture.
        backend: ``torch``, or ``scikit-learn`` for a plain mixture by it.
        restarts: the mixture is fitted so often; the fit of the largest lower bound counts.
        stability: the Bhattacharyya coefficient from which a region is found again in another restart.
        min_weight: components of less weight are dropped (the papers' epsilon).
        min_failures: components that stand for fewer failures are dropped.
        tau: scale of a region's covariance for fresh draws.
        rho: a region is a candidate when its failure rate is surely above this.
        confirmations: fresh draws that decide it.
        max_overlap: regions of one error whose Bhattacharyya coefficient is larger are merged.
        images: tiles in each of a scenario's two sheets.
        candidates: at most so many candidates, those of most weight first.
        confidence: softmax probability from which a judge is sure.
        latent, beta, generator_steps: the built-in generator.
        worst_reconstruction: the least accuracy on reconstructions, as a share of the accuracy on images.
    """

    budget: int = 40_000
    draws: int = 40
    noise: float = 0.4
    cap: int = 10
    neighbours: int = 20
    neighbour_noise: float = 0.4
    clustering: str = "joint"
    components: int = 100
    backend: str = "torch"
    restarts: int = 5
    stability: float = 0.5
    min_weight: float = 0.01
    min_failures: int = 30
    tau: float = 0.5
    rho: float = 0.5
    confirmations: int = 256
    max_overlap: float = 0.3
    images: int = 256
    candidates: int = 12
    confidence: float = 0.9
    latent: int = 16
    beta: float = 0.5
    generator_steps: int = 3000
    worst_reconstruction: float = 0.85

    @staticmethod
    def of(given: Mapping[str, Any]) -> "DiscoverySettings":
        """The defaults, changed where ``given`` says so.

        Raises:
            DefuseError: a name that is no setting, or a value of another type or below zero.
        """
        known = {field.name: field.type for field in fields(DiscoverySettings)}
        for name, value in given.items():
            if name not in known:
                raise DefuseError(f"defuse_discover has no setting {name!r}: it has {', '.join(known)}.")
            if name in CHOICES:
                if value not in CHOICES[name]:
                    raise DefuseError(f"defuse_discover({name}={value!r}): give {' or '.join(CHOICES[name])}.")
                continue
            kinds = int if known[name] is int else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
                raise DefuseError(f"defuse_discover({name}={value!r}): give a number above 0.")
        return replace(DiscoverySettings(), **given)
