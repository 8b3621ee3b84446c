"""The outcome of an explanation as plain values, ready for JSON."""

import base64
import io
from dataclasses import dataclass, field

from pytest_defuse.discover.results import CandidateResult, candidate_result
from pytest_defuse.explain.explanation import Explanation
from pytest_defuse.explain.failure_modes import FailureMode
from pytest_defuse.explain.figures import node_figure
from pytest_defuse.rules.rates import Cluster, aler, aler_interval
from pytest_defuse.rules.trees import Node
from pytest_defuse.scenarios.store import Stored

MAX_FIGURES = 24
"""Figures of one explanation; they take about 3 MB. Our choice."""


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
    cluster: Cluster  # counts of the images that measured the tree
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


def explanation_result(explanation: Explanation, stored: Stored, *, figures: bool) -> ExplanationResult:
    """The result of an explanation; ``figures`` draws the nodes of the most important trees, some seconds each."""
    modes = explanation.modes
    ranked = list(dict.fromkeys(mode.group for mode in modes))
    nodes = 2 ** (explanation.settings.depth + 1) - 2  # below a root, each with a figure
    drawn = ranked[: MAX_FIGURES // nodes] if figures else []
    return ExplanationResult(
        subject=explanation.subject.name,
        features=f"{explanation.network.name} of {explanation.network.classifier.name}",
        key=explanation.network.key,
        groups=len(modes.trees),
        passed_over=len(modes.skipped),
        modes=[_mode(mode) for mode in modes],
        trees=[_tree(explanation, group, figures=group in drawn) for group in ranked],
        new=[candidate_result(scenario) for scenario in stored.new],
        known=[scenario.id for scenario in stored.known],
    )


def _mode(mode: FailureMode) -> FailureModeResult:
    rates = (mode.error_rate, mode.base_error_rate, mode.error_coverage)
    return FailureModeResult(mode.group, mode.rule, *rates, mode.cluster.images, mode.cluster.error_rate_interval)


def _tree(explanation: Explanation, group: str, *, figures: bool) -> TreeResult:
    root = explanation.modes.trees[group]
    leaves = [leaf.cluster for leaf in root.leaves()]
    reported = {mode.path for mode in explanation.modes if mode.group == group}

    def node_result(node: Node) -> NodeResult:
        condition = str(node.path[-1]) if node.path else ""
        figure = _png(explanation, group, node) if figures and node.path else ""
        return NodeResult(condition, node.cluster, node.path in reported, figure, list(map(node_result, node.children)))

    return TreeResult(group, root.cluster.base_error_rate, aler(leaves), aler_interval(leaves), node_result(root))


def _png(explanation: Explanation, group: str, node: Node) -> str:
    buffer = io.BytesIO()
    node_figure(explanation, group, node).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
