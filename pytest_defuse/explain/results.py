"""The outcome of an explanation as plain values, ready for JSON."""

import base64
import io
from dataclasses import dataclass, field

from pytest_defuse.discover.results import CandidateResult
from pytest_defuse.explain.explanation import Explanation
from pytest_defuse.explain.figures import node_figure
from pytest_defuse.rules.rates import Interval, aler, aler_interval
from pytest_defuse.rules.trees import Node

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
class RateResult:
    """A rate of a node, in [0, 1], with its 95% interval."""

    name: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class NodeResult:
    """A node of a failure tree and those below it.

    Attributes:
        condition: the last condition of its path; empty at the root.
        failures, images, group_failures: counts of the images that measured the tree.
        rates: ER, EC and IV.
        reported: whether it is a failure mode.
        figure: a PNG in base64, or empty.
    """

    condition: str
    failures: int
    images: int
    group_failures: int
    rates: list[RateResult]
    reported: bool
    figure: str
    children: "list[NodeResult]"


@dataclass(frozen=True)
class TreeResult:
    """The tree of a group with a failure mode; ALER with its 95% interval."""

    group: str
    base_error_rate: float
    aler: float
    aler_interval: tuple[float, float]
    root: NodeResult


@dataclass(frozen=True)
class ExplanationResult:
    """The failure modes of a model on real images (Barlow).

    Attributes:
        features: the layer and the network in words; ``key`` identifies them in store.yaml.
        groups: number of groups with enough failures; ``passed_over`` is the number of the others.
        modes: the most important first.
        trees: of the groups with a failure mode.
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


def explanation_result(explanation: Explanation, *, figures: bool) -> ExplanationResult:
    """The plain values of an explanation.

    Args:
        figures: draw the nodes of the most important trees, which takes some seconds each.
    """
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
        modes=[
            FailureModeResult(
                group=mode.group,
                rule=mode.rule,
                error_rate=mode.error_rate,
                base_error_rate=mode.base_error_rate,
                error_coverage=mode.error_coverage,
                images=mode.cluster.images,
                interval=mode.cluster.error_rate_interval,
            )
            for mode in modes
        ],
        trees=[_tree(explanation, group, figures=group in drawn) for group in ranked],
    )


def _tree(explanation: Explanation, group: str, *, figures: bool) -> TreeResult:
    root = explanation.modes.trees[group]
    leaves = [leaf.cluster for leaf in root.leaves()]
    reported = {mode.path for mode in explanation.modes if mode.group == group}

    def node_result(node: Node) -> NodeResult:
        cluster = node.cluster
        return NodeResult(
            condition=str(node.path[-1]) if node.path else "",
            failures=cluster.failures,
            images=cluster.images,
            group_failures=cluster.group_failures,
            rates=[
                RateResult("error rate", cluster.error_rate, cluster.error_rate_interval),
                RateResult("share of the group's failures", cluster.error_coverage, cluster.error_coverage_interval),
                RateResult("importance (their product)", cluster.importance, cluster.importance_interval),
            ],
            reported=node.path in reported,
            figure=_png(explanation, group, node) if figures and node.path else "",
            children=[node_result(child) for child in node.children],
        )

    return TreeResult(group, root.cluster.base_error_rate, aler(leaves), aler_interval(leaves), node_result(root))


def _png(explanation: Explanation, group: str, node: Node) -> str:
    buffer = io.BytesIO()
    node_figure(explanation, group, node).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
