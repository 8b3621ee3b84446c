"""The values from which the template draws charts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.discover.results import LatentMapResult
from pytest_defuse.report.charts import BINS, CONFUSED_CLASSES, confidence_histogram, confusion, scatters

NAMES = st.sampled_from(["1", "2", "10", "cat", "dog"])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_a_histogram_counts_every_image_once(images: list[tuple[float, bool]]) -> None:
    histogram = confidence_histogram(images)
    assert histogram is not None
    assert len(histogram.bins) == BINS
    assert sum(b.correct for b in histogram.bins) == sum(correct for _, correct in images)
    assert sum(b.correct + b.wrong for b in histogram.bins) == len(images)
    assert histogram.top == max(b.correct + b.wrong for b in histogram.bins)


def test_a_histogram_without_images() -> None:
    assert confidence_histogram([]) is None


@given(st.lists(st.tuples(NAMES, NAMES)))
def test_a_confusion_counts_every_pair_once(pairs: list[tuple[str, str]]) -> None:
    table = confusion(pairs)
    cells = {
        (label, prediction): table.counts[row][column]
        for row, label in enumerate(table.labels)
        for column, prediction in enumerate(table.predictions)
    }
    assert {pair: count for pair, count in cells.items() if count} == dict(Counter(pairs))
    assert table.omitted == 0


def test_numbers_are_in_their_order() -> None:
    assert confusion([("10", "2"), ("2", "b"), ("b", "a")]).predictions == ("2", "10", "a", "b")


def test_of_many_classes_those_that_are_confused_stay() -> None:
    correct = [(f"class {n}", f"class {n}") for n in range(100) for _ in range(50)]
    table = confusion([*correct, ("class 73", "class 91")])
    assert len(table.predictions) == CONFUSED_CLASSES
    assert {"class 73", "class 91"} <= set(table.labels)
    assert table.omitted == 80


def test_a_class_has_its_name_amid_its_points() -> None:
    latent = LatentMapResult(
        ["a"] * 5, 1, ["a as b"], {"PCA": [(0, 0), (1, 9), (2, 8), (3, 7), (999, 1), (7, 7), (5, 6)]}
    )
    (chart,) = scatters(latent)
    (own,) = chart.classes
    assert (own.x, own.y) == (2, 7)
    assert own.path.count("M") == 5
    assert chart.failures.startswith("M7 0l")
    assert chart.regions == ((1, "a as b", 5, 6),)


def test_a_map_without_projections_has_no_charts() -> None:
    assert scatters(LatentMapResult([], 0, [], {})) == []


@pytest.mark.parametrize("count", [1, 12, 40])
def test_classes_have_different_colours(count: int) -> None:
    latent = LatentMapResult([str(n) for n in range(count)], 0, [], {"PCA": [(n, n) for n in range(count)]})
    (chart,) = scatters(latent)
    assert len({points.hue for points in chart.classes}) == count
