"""What comes of holding a model's answers against bounds and against a baseline: plain values, ready for JSON."""

from dataclasses import dataclass

from pytest_defuse.gate.bounds import Outcome


@dataclass(frozen=True)
class Check:
    """One bound held against one group of images.

    Attributes:
        bound: ``min_accuracy``, ``max_drop``, ``max_relative_drop``, ``max_flips`` or ``no_regression``.
        group: the class whose images are counted; empty for all images.
        images: how many they are.
        measured: an accuracy in [0, 1], a drop in accuracy in [-1, 1], or a number of flips.
        limit: what the bound allows, in the unit of ``measured``.
        interval: of ``measured``, at the confidence of the bounds.
        outcome: ``unsure`` means that there are too few images to tell; it does not fail.
        reason: where the limit comes from, in words.
        p: two-sided, of ``measured`` where the limit is the truth; None without ``confidence``.
        adjusted_p: the same after Benjamini and Hochberg, over all checks that were judged at once.
        enough: images that would tell if their share stayed; None where no number would, or none is wanted.
    """

    bound: str
    group: str
    images: int
    measured: float
    limit: float
    interval: tuple[float, float]
    outcome: Outcome
    reason: str
    p: float | None = None
    adjusted_p: float | None = None
    enough: int | None = None


@dataclass(frozen=True)
class Comparison:
    """A model against the baseline on the same images.

    Attributes:
        images: how many both have judged; ``correct`` of them the baseline had right.
        predicted: the baseline's class names, one an image of the set; None where the baseline has not seen it.
        lost: flips, images that the baseline had right and this model has wrong, counted from 0.
        gained: images that the baseline had wrong and this model has right.
        same_model: whether both are the same weights.
        p: McNemar's exact test of ``lost`` against ``gained``.
        adjusted_p: the same after Benjamini and Hochberg, over all scenarios that were judged at once.
    """

    images: int
    correct: int
    predicted: list[str | None]
    lost: list[int]
    gained: list[int]
    same_model: bool
    p: float
    adjusted_p: float
