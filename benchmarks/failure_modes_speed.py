"""Seconds to select features and grow a tree for one group, compared with scikit-learn's mutual information and tree.

    python benchmarks/failure_modes_speed.py [IMAGES FEATURES]

The default size is the paper's: 1,300 images of a class with 2,048 features, three of them informative. Both sides use
as many threads as they can get, so limit the cores to compare them.
"""

import os
import sys
import time
from collections.abc import Callable

import numpy as np

from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.rules.trees import Node, fit_tree


def group(images: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Features, of which 10, 20 and 30 make failures likely."""
    random = np.random.default_rng(0)
    values = random.standard_normal((images, features)).astype(np.float32)
    return values, random.random(images) < 0.1 + 0.3 * (values[:, [10, 20, 30]] > 1).sum(axis=1)


def timed(work: Callable[[], Node], repeats: int) -> tuple[float, Node]:
    """The shortest time of ``repeats`` runs, in seconds, and the result."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - started)
    return min(times), result


def main(images: int = 1300, features: int = 2048) -> None:
    """Print both times and their ratio."""
    values, failed = group(images, features)
    print(f"{images:,} x {features:,}, {failed.mean():.0%} failures, {len(os.sched_getaffinity(0))} cores visible")
    ours, tree = timed(lambda: fit_tree(values, failed, ExplainSettings()), repeats=5)
    paper, paper_tree = timed(lambda: fit_tree(values, failed, ExplainSettings(selection="paper")), repeats=2)
    print(f"exact gain and tree: {ours:.3f} s, splits at {tree.children[0].path[0]}")
    print(f"scikit-learn's mutual information and tree: {paper:.2f} s, splits at {paper_tree.children[0].path[0]}")
    print(f"ratio: {paper / ours:.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
