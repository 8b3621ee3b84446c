"""The results of an explanation, from its failure modes and trees."""

import base64
import io

from pytest_defuse.discover.summary import candidate_result
from pytest_defuse.explain.explanation import Explanation
from pytest_defuse.explain.failure_modes import FailureMode
from pytest_defuse.explain.figures import node_figure
from pytest_defuse.explain.results import ExplanationResult, FailureModeResult, NodeResult, TreeResult
from pytest_defuse.rules.rates import aler, aler_interval
from pytest_defuse.rules.trees import Node
from pytest_defuse.scenarios.store import Stored

MAX_FIGURES = 24
"""Figures of one explanation; they take about 3 MB. Our choice."""


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
        left_out=list(stored.left_out),
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
