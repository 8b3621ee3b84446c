"""Choosing among trials; scenarios a, b, ... have 1,000 correction tiles each."""

import pytest

from pytest_defuse.correct.trials import Trial, choose, choose_as_the_papers, promise
from pytest_defuse.statistics.accuracy import Accuracy


def trial(weight: float, validation: float, *scenarios: float, shifted: float = 1.0, harm: str = "") -> Trial:
    scores = {name: Accuracy(round(1000 * score), 1000) for name, score in zip("abc", scenarios, strict=False)}
    blurred = {"blur": Accuracy(round(1000 * shifted), 1000)}
    excesses = (harm,) if harm else ()
    return Trial(weight, 1e-3, 1, 1.0, Accuracy(round(1000 * validation), 1000), blurred, scores, excesses)


@pytest.mark.parametrize(
    ("trials", "least", "weight"),
    [
        ([trial(0, 0.99, 0.1), trial(0.1, 0.98, 1), trial(1, 0.97, 1)], {"a": 0.9}, 0.1),
        ([trial(0.1, 0.98, 1, shifted=0.9), trial(1, 0.97, 1)], {}, 1),
        ([trial(0.1, 0.99, 0.95), trial(1, 0.97, 1)], {"a": 0.9}, 1),
        ([trial(0.1, 0.99, 0.8), trial(1, 0.97, 0.95)], {"a": 0.9}, 1),
        ([trial(0, 0.99, 1), trial(0.1, 0.99, 1)], {"a": 0.9}, 0),
        ([trial(0.1, 0.99, 0.2), trial(1, 0.97, 0.8)], {"a": 0.9}, 1),
        ([trial(0.1, 0.99, 0.99, 0.1), trial(1, 0.97, 0.99, 0.99)], {"a": 0.9, "b": 0.9}, 1),
        ([trial(0.1, 0.90, 1), trial(1, 0.97, 1, harm="too many flips")], {"a": 0.9}, 0.1),
        ([trial(0.1, 0.99, 0.998), trial(1, 0.97, 1)], {"a": 0.999}, 1),
    ],
    ids=[
        "the best on validation images among those that mend",
        "shifted copies count as much",
        "a bound that is met is not yet mended",
        "a bound comes before all else",
        "the first at a tie",
        "what is lacking counts while none mends",
        "every scenario has to meet its bound",
        "a bound on harm is a bound",
        "a bound above the aim is the aim",
    ],
)
def test_choosing(trials: list[Trial], least: dict[str, float], weight: float) -> None:
    assert choose(trials, least, aim=0.995).weight == weight


@pytest.mark.parametrize(
    ("trials", "least", "weight"),
    [
        ([trial(0.1, 0.97, 0.92), trial(1, 0.95, 0.99)], {"a": 0.9}, 0.1),
        ([trial(0.1, 0.95, 0.92), trial(1, 0.97, 0.99)], {"a": 0.9}, 1),
        ([trial(0.1, 0.97, 0.99), trial(1, 0.97, 1)], {"a": 0.9}, 0.1),
        ([trial(0.1, 0.97, 0.7), trial(1, 0.5, 0.8)], {"a": 0.9}, 1),
        ([trial(0.1, 0.99, 0.5, 0.5), trial(1, 0.97, 0.8, 0.5)], {"a": 0.8, "b": 0.4}, 1),
    ],
)
def test_choosing_as_the_papers_do(trials: list[Trial], least: dict[str, float], weight: float) -> None:
    assert choose_as_the_papers(trials, least).weight == weight


@pytest.mark.parametrize(
    ("trials", "weight"),
    [
        ([trial(0.1, 0.97, 0.96), trial(0.3, 0.98, 1)], 0.1),
        ([trial(0.1, 0.97, 0.8), trial(0.3, 0.96, 1)], 0.3),
        ([trial(0.1, 0.97, 0.5), trial(0.3, 0.96, 0.8)], 0.3),
        ([trial(0.1, 0.97, 1, harm="too many flips"), trial(0.3, 0.96, 0.5)], 0.3),
        ([trial(0.1, 0.96, 1), trial(0.1, 0.97, 1), trial(0.3, 0.98, 1)], 0.1),
    ],
    ids=[
        "the mildest on course",
        "one that is on course before a milder one that is not",
        "what is lacking counts where none is on course",
        "harm comes before all else",
        "health decides between rates",
    ],
)
def test_the_most_promising_of_trials_on_their_way(trials: list[Trial], weight: float) -> None:
    best = max(trials, key=lambda trial: promise(trial, {"a": 0.9}, aim=0.995))
    assert best.weight == weight
    assert best.validation.value == max(t.validation.value for t in trials if t.weight == weight)
