"""An explanation as plain values: its rules, and the trees that they are leaves of."""

import base64
import io

from pytest_defuse.explain.explanation import Explanation
from pytest_defuse.explain.figures import node_figure
from pytest_defuse.explain.rates import Interval, aler, aler_interval
from pytest_defuse.explain.trees import Node
from pytest_defuse.report.results import ExplanationResult, FailureModeResult, NodeResult, TreeResult
from pytest_defuse.report.words import percent, span

FIGURES = 24
"""Figures of one explanation, at most: some 3 MB."""


def explanation_result(explanation: Explanation, *, figures: bool) -> ExplanationResult:
    """The plain values of an explanation.

    Args:
        figures: whether the nodes of the most important trees carry their pictures, which takes some seconds each.
    """
    modes = explanation.modes
    ranked = list(dict.fromkeys(mode.group for mode in modes))
    nodes = 2 ** (explanation.settings.depth + 1) - 2  # below a root, each with a figure
    shown = ranked[: FIGURES // nodes] if figures else []
    return ExplanationResult(
        subject=explanation.subject.name,
        features=f"{explanation.network.name} of {explanation.network.classifier.name}",
        key=explanation.network.key,
        groups=len(modes.trees),
        passed_over=len(modes.passed_over),
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
        trees=[_tree(explanation, group, figures=group in shown) for group in ranked],
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
                _rate("error rate", cluster.error_rate, cluster.error_rate_interval),
                _rate("share of the group's failures", cluster.error_coverage, cluster.error_coverage_interval),
                _rate("importance (their product)", cluster.importance, cluster.importance_interval),
            ],
            reported=node.path in reported,
            figure=_png(explanation, group, node) if figures and node.path else "",
            children=[node_result(child) for child in node.children],
        )

    return TreeResult(group, root.cluster.base_error_rate, aler(leaves), aler_interval(leaves), node_result(root))


def _rate(name: str, value: float, interval: Interval) -> str:
    return f"{name} {percent(value)}, 95% interval {span(interval)}"


def _png(explanation: Explanation, group: str, node: Node) -> str:
    buffer = io.BytesIO()
    node_figure(explanation, group, node).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
