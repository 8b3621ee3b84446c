"""The geometry of the HTML page's charts; the template draws them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median_high

from pytest_defuse.discover.results import LatentMapResult

BINS = 20
"""Bins of a histogram of confidences: five points each. Our choice."""
CONFUSED_CLASSES = 20
"""Rows and columns of a confusion matrix, as many as a page shows without scrolling. Our choice."""
GOLDEN_ANGLE = 137.508
"""Degrees between the hues of consecutive classes, which keeps the hues of any number of classes apart."""
DIAMOND = 7
"""Half the width of a failure's mark, in units of the map, which is 1000 wide. Our choice."""


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies from ``low`` to ``high``."""

    low: float
    high: float
    correct: int
    wrong: int


@dataclass(frozen=True)
class Histogram:
    """Confidences of correct and of wrong predictions; ``top`` is the count of the fullest bin."""

    bins: tuple[Bin, ...]
    top: int


def confidence_histogram(predictions: Sequence[tuple[float, bool]]) -> Histogram | None:
    """The histogram of predictions, each a confidence and whether it is correct; None without predictions."""
    if not predictions:
        return None
    counts = Counter((min(int(confidence * BINS), BINS - 1), correct) for confidence, correct in predictions)
    bins = tuple(Bin(n / BINS, (n + 1) / BINS, counts[n, True], counts[n, False]) for n in range(BINS))
    return Histogram(bins, max(b.correct + b.wrong for b in bins))


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        labels, predictions: class names of the rows and of the columns.
        counts: numbers of images, one row per label.
        omitted: number of classes without a row, those with the fewest errors.
    """

    labels: tuple[str, ...]
    predictions: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    omitted: int

    def share(self, row: int, column: int) -> float:
        """A cell's share of its row, in [0, 1]."""
        return self.counts[row][column] / max(sum(self.counts[row]), 1)


def confusion(pairs: Iterable[tuple[str, str]]) -> Confusion:
    """The confusion matrix of (label, prediction) pairs; of many classes, those with the most errors."""
    counts = Counter(pairs)
    errors: Counter[str] = Counter()
    for (label, prediction), count in counts.items():
        for name in (label, prediction):
            errors[name] += count if label != prediction else 0
    shown = {name for name, _ in errors.most_common(CONFUSED_CLASSES)}
    labels = sorted({label for label, _ in counts} & shown, key=_natural)
    predictions = sorted({name for pair in counts for name in pair} & shown, key=_natural)
    rows = tuple(tuple(counts[label, prediction] for prediction in predictions) for label in labels)
    return Confusion(tuple(labels), tuple(predictions), rows, len(errors) - len(shown))


@dataclass(frozen=True)
class ClassPoints:
    """The training images of a class: an SVG path of dots, and the position of its name."""

    name: str
    hue: int
    path: str
    x: int
    y: int


@dataclass(frozen=True)
class Scatter:
    """One projection of latent space, in a square of 1000 units.

    Attributes:
        failures: an SVG path of diamonds.
        regions: number, error, x and y of each candidate's mean.
    """

    title: str
    classes: tuple[ClassPoints, ...]
    failures: str
    regions: tuple[tuple[int, str, int, int], ...]


def scatters(latent: LatentMapResult) -> list[Scatter]:
    """The projections of a latent map."""
    return [_scatter(title, points, latent) for title, points in latent.projections.items()]


def _scatter(title: str, points: Sequence[tuple[int, int]], latent: LatentMapResult) -> Scatter:
    images, rest = points[: len(latent.labels)], points[len(latent.labels) :]
    failures, means = rest[: latent.failures], rest[latent.failures :]
    classes = []
    for position, name in enumerate(sorted(set(latent.labels), key=_natural)):
        own = [point for point, label in zip(images, latent.labels, strict=True) if label == name]
        path = "".join(f"M{x} {y}h0" for x, y in own)
        # Outliers do not move the median.
        x, y = map(median_high, zip(*own, strict=True))
        classes.append(ClassPoints(name, round(position * GOLDEN_ANGLE) % 360, path, x, y))
    diamond = f"l{DIAMOND} {DIAMOND}-{DIAMOND} {DIAMOND}-{DIAMOND}-{DIAMOND}z"
    diamonds = "".join(f"M{x} {y - DIAMOND}{diamond}" for x, y in failures)
    regions = [(n, error, *mean) for n, (error, mean) in enumerate(zip(latent.candidates, means, strict=True), start=1)]
    return Scatter(title, tuple(classes), diamonds, tuple(regions))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A sort key: ``2`` before ``10``, and numbers before words."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part]
