"""The outcome of an explanation as plain values, ready for JSON."""

from dataclasses import dataclass, field

from pytest_defuse.discover.results import CandidateResult
from pytest_defuse.rules.rates import Cluster


@dataclass(frozen=True)
class FailureModeResult:
    """A failure mode on real images (Barlow); rates in [0, 1], with the 95% interval of the error rate."""

    group: str
    rule: str
    error_rate: float
    base_error_rate: float
    error_coverage: float
    images: int
    interval: tuple[float, float]


@dataclass(frozen=True)
class NodeResult:
    """A node of a failure tree and its children."""

    condition: str  # the last of its path; empty at the root
    cluster: Cluster  # counts of the images on which the tree was measured
    reported: bool  # whether it is a failure mode
    figure: str  # a PNG in base64, or empty
    children: "list[NodeResult]"


@dataclass(frozen=True)
class TreeResult:
    """The tree of a group that has a failure mode; the average leaf error rate (ALER) with its 95% interval."""

    group: str
    base_error_rate: float
    aler: float
    aler_interval: tuple[float, float]
    root: NodeResult


@dataclass(frozen=True)
class ExplanationResult:
    """The failure modes of a model on real images (Barlow), the most important first, and their groups' trees.

    Attributes:
        features: the layer and the network in words; ``key`` identifies them in store.yaml.
        groups: number of groups with enough failures; ``passed_over`` is the number of the others.
        new, known: candidates from the modes, in a session that discovers.
        left_out: modes that did not become candidates, and why, one sentence each.
    """

    subject: str
    features: str
    key: str
    groups: int
    passed_over: int
    modes: list[FailureModeResult]
    trees: list[TreeResult]
    new: list[CandidateResult] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
