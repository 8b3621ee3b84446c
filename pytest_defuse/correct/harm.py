"""The harm of a correction: the corrected model compared with the old one image by image, and the bounds on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pytest_defuse.correct.judgement import SIGNIFICANCE_LEVEL, Judgement, ScenarioCounts
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.gate.checks import TOLERANCE, Outcome
from pytest_defuse.scenarios.problems import listed
from pytest_defuse.statistics.significance import binomial_tail, mcnemar


@dataclass(frozen=True, eq=False)
class PairedPredictions:
    """Labels, and the predictions of the old and the corrected model: class indices, int64 N each."""

    labels: Tensor
    before: Tensor
    after: Tensor

    @property
    def drop(self) -> float:
        """Accuracy lost, in [-1, 1]."""
        return (len(self.negative_flips) - len(self.positive_flips)) / max(1, len(self.labels))

    @property
    def negative_flips(self) -> Tensor:
        """Indices of images that were classified correctly before and are not now."""
        return ((self.before == self.labels) & (self.after != self.labels)).nonzero().squeeze(1)

    @property
    def positive_flips(self) -> Tensor:
        """Indices of images that are classified correctly now and were not before."""
        return ((self.before != self.labels) & (self.after == self.labels)).nonzero().squeeze(1)

    def counts(self, name: str) -> ScenarioCounts:
        """The images counted, as those of the scenario ``name``."""
        before, after = (int((predicted == self.labels).sum()) for predicted in (self.before, self.after))
        lost, gained = len(self.negative_flips), len(self.positive_flips)
        return ScenarioCounts(name, len(self.labels), before, after, lost, gained)

    def class_drops(self, classes: Sequence[str]) -> "list[ClassDrop]":
        """The drop of each class that occurs, the largest first."""
        drops = []
        for label in self.labels.unique().tolist():
            rows = self.labels == label
            part = PairedPredictions(self.labels[rows], self.before[rows], self.after[rows])
            lost, gained = len(part.negative_flips), len(part.positive_flips)
            drops.append(ClassDrop(classes[label], len(part.labels), lost, gained))
        return sorted(drops, key=lambda drop: -drop.value)


@dataclass(frozen=True)
class ClassDrop:
    """Images of one class: ``lost`` were correct before and are wrong now, ``gained`` the reverse."""

    label: str
    total: int
    lost: int
    gained: int

    @property
    def value(self) -> float:
        """Accuracy lost, in [-1, 1]."""
        return (self.lost - self.gained) / self.total

    def outcome(self, bound: float, classes: int) -> Outcome:
        """Whether the class lost more accuracy than ``bound``, in [0, 1]; ``classes`` is the number of classes.

        The bound is on the true accuracy of a class, of which few images give only an estimate: of 1,000 classes, some
        always lose more by chance. So a drop above the bound is tested:

        - PASS: the drop is at most the bound, or as many images would often (with a probability of at least
          :data:`SIGNIFICANCE_LEVEL`) be lost net of gains if each were lost with a probability equal to the bound. At
          3% these are 1 image of 10, 4 of 50, 6 of 100 and 39 of 1,000.
        - FAIL: this probability, and that of the exact one-sided sign test of losses against gains, are below the level
          divided by the number of classes (Bonferroni).
        - INCONCLUSIVE: all drops between, which are significant for one class, but not among so many.

        Where even the loss of every image would be likely by chance, no drop could be significant: the drop decides.
        """
        if self.value <= bound + TOLERANCE:
            return "PASS"
        if bound**self.total >= SIGNIFICANCE_LEVEL:
            return "FAIL"
        chance = binomial_tail(self.lost - self.gained, self.total, bound)
        if chance >= SIGNIFICANCE_LEVEL:
            return "PASS"
        significant = max(chance, mcnemar(self.lost, self.gained) / 2) < SIGNIFICANCE_LEVEL / classes
        return "FAIL" if significant else "INCONCLUSIVE"


def violations(
    test: PairedPredictions,
    shifts: Mapping[str, PairedPredictions],
    settings: CorrectionSettings,
    classes: Sequence[str],
    name: str,
) -> list[Judgement]:
    """The bounds on harm that do not pass, and a note on classes that cannot be judged; ``name`` names ``test``.

    The drop on each class has three outcomes (:meth:`ClassDrop.outcome`); the observed value decides on the others.
    """
    failed: list[str] = []
    undecided: list[str] = []
    drops, total = test.class_drops(classes), max(1, len(test.labels))
    if test.drop > settings.max_test_drop:
        failed.append(f"accuracy on the {name} fell by {test.drop:.2%}, more than {_bound('max_test_drop', settings)}")
    for drop in drops:
        outcome = drop.outcome(settings.max_class_drop, len(drops))
        sentence = (
            f"accuracy on class {drop.label!r} of the {name} fell by {drop.value:.1%} ({drop.lost} of {drop.total} "
            f"images lost, {drop.gained} gained), more than {_bound('max_class_drop', settings)}"
        )
        if outcome == "FAIL":
            failed.append(sentence)
        elif outcome == "INCONCLUSIVE":
            undecided.append(f"{sentence}, which may be chance among {len(drops)} classes: give more {name} images")
    flips = len(test.negative_flips)
    if flips / total > settings.max_negative_flips:
        failed.append(
            f"{flips} of {total} images of the {name} were correct and are wrong, {flips / total:.1%}, more than "
            f"{_bound('max_negative_flips', settings)}"
        )
    for shift_name, shift in shifts.items():
        if shift.drop > settings.max_shift_drop:
            before = (shift.before == shift.labels).double().mean().item()
            failed.append(
                f"accuracy on shift set {shift_name} fell from {before:.1%} to {before - shift.drop:.1%}, more than "
                f"{_bound('max_shift_drop', settings)}"
            )
    judged = {drop.label for drop in drops}
    missing = listed([repr(label) for label in classes if label not in judged])
    notes = [f"max_class_drop is not judged for {missing}: the {name} has no such image"] if missing else []
    sentences: dict[Outcome, list[str]] = {"FAIL": failed, "INCONCLUSIVE": undecided, "PASS": notes}
    return [Judgement(outcome, sentence) for outcome, part in sentences.items() for sentence in part]


def _bound(name: str, settings: CorrectionSettings) -> str:
    return f"{name} {getattr(settings, name):.1%}"
