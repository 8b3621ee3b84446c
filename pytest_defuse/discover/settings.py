"""What a discovery can be told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pytest_defuse.runtime.errors import DefuseError


def _choice(first: str, *others: str) -> Any:
    return field(default=first, metadata={"choices": (first, *others)})


def _share(default: float) -> Any:
    return field(default=default, metadata={"below": 1})


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
        clustering: ``joint`` (a mixture for each kind of error) or ``plain`` (the papers': one over all codes).
        components: truncation of a mixture, which has fewer where failures are few.
        backend: ``torch``, or ``scikit-learn``, whose mixture then does the same more slowly.
        restarts: the mixture is fitted so often; the fit of the largest lower bound counts.
        stability: the Bhattacharyya coefficient from which a region is found again in another restart.
        min_weight: components of less weight are dropped (epsilon; the papers' is 0.01).
        min_failures: components that stand for fewer failures are dropped; above ``cap``, so that a region is more
            than one image.
        tau: scale of a region's covariance for fresh draws.
        rho: a region is a candidate when its failure rate is surely above this.
        confirmations: fresh draws that decide it.
        max_overlap: regions of one error whose Bhattacharyya coefficient is larger are merged.
        images: tiles in each of a scenario's two sheets.
        candidates: at most so many candidates, those that cover most images first.
        confidence: the least softmax probability of a judge that is sure.
        generator: the built-in generator's kind: ``default``, which keeps what a judge sees, or ``paper``.
        latent, beta, generator_steps: of the default generator; latent: 16 a colour channel unless given.
        worst_reconstruction: the least accuracy on reconstructions, as a share of the accuracy on images.
    """

    mode: str = _choice("default", "gradient", "paper")
    budget: int = 60_000
    draws: int = 10
    noise: float = 0.4
    neighbour_noise: float = 0.3
    cap: int = 10
    a: float = 50.0
    b: float = 50.0
    steps: int = 5
    clustering: str = _choice("joint", "plain")
    components: int = 100
    backend: str = _choice("torch", "scikit-learn")
    restarts: int = 5
    stability: float = _share(0.5)
    min_weight: float = _share(0.001)
    min_failures: int = 15
    tau: float = 0.5
    rho: float = _share(0.5)
    confirmations: int = 256
    max_overlap: float = _share(0.3)
    images: int = 256
    candidates: int = 12
    confidence: float = _share(0.9)
    generator: str = _choice("default", "paper")
    latent: int = 0
    beta: float = 0.5
    generator_steps: int = 2000
    worst_reconstruction: float = _share(0.85)

    @staticmethod
    def of(given: Mapping[str, Any]) -> "DiscoverySettings":
        """The defaults of the mode, changed where ``given`` says so.

        Raises:
            DefuseError: a name that is no setting, or a value of another type or out of range.
        """
        known = {field.name: field for field in fields(DiscoverySettings)}
        for name, value in given.items():
            if name not in known:
                raise DefuseError(f"defuse_discover has no setting {name!r}: it has {', '.join(known)}.")
            if "choices" in known[name].metadata:
                wanted, fits = _choice_of(value, known[name].metadata["choices"])
            else:
                wanted, fits = _number(value, known[name].type is int, known[name].metadata.get("below", math.inf))
            if not fits:
                raise DefuseError(f"defuse_discover({name}={value!r}): give {wanted}.")
        return replace(PAPER if given.get("mode") == "paper" else DiscoverySettings(), **given)


PAPER = DiscoverySettings(
    mode="paper", draws=500, cap=100, clustering="plain", restarts=1, min_weight=0.01, min_failures=30
)
"""The papers' values, those for MNIST: one fit of the mixture, so none is asked whether it finds a region again."""


def _choice_of(value: Any, choices: tuple[str, ...]) -> tuple[str, bool]:
    return " or ".join(choices), value in choices


def _number(value: Any, whole: bool, below: float) -> tuple[str, bool]:
    words = "a number above 0" if below == math.inf else f"a number between 0 and {below}"
    kinds = int if whole else (int, float)
    return words, not isinstance(value, bool) and isinstance(value, kinds) and 0 < value < below
