"""The choice of a trial; scenarios a, b, ... have 1,000 correction tiles each."""

import pytest

from pytest_defuse.correct.trials import Trial, choose, choose_like_the_papers, ranking_key
from pytest_defuse.statistics.accuracy import Accuracy


def trial(lambda_: float, validation: float, *scenarios: float, shifted: float = 1.0, harm: str = "") -> Trial:
    scores = {name: Accuracy(round(1000 * score), 1000) for name, score in zip("abc", scenarios, strict=False)}
    blurred = {"blur": Accuracy(round(1000 * shifted), 1000)}
    violations = (harm,) if harm else ()
    return Trial(lambda_, 1e-3, 1, 1.0, Accuracy(round(1000 * validation), 1000), blurred, scores, violations)


@pytest.mark.parametrize(
    ("trials", "minimum", "lambda_"),
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
        "the highest validation accuracy among those that reach the aim",
        "shifted copies count as much as validation images",
        "a bound that passes is below the aim",
        "bounds come first",
        "the first at a tie",
        "the shortfall counts while none reaches the aim",
        "every scenario must pass its bound",
        "a bound on harm is a bound",
        "a bound above the aim replaces it",
    ],
)
def test_choosing(trials: list[Trial], minimum: dict[str, float], lambda_: float) -> None:
    assert choose(trials, minimum, aim=0.995).lambda_ == lambda_


@pytest.mark.parametrize(
    ("trials", "minimum", "lambda_"),
    [
        ([trial(0.1, 0.97, 0.92), trial(1, 0.95, 0.99)], {"a": 0.9}, 0.1),
        ([trial(0.1, 0.95, 0.92), trial(1, 0.97, 0.99)], {"a": 0.9}, 1),
        ([trial(0.1, 0.97, 0.99), trial(1, 0.97, 1)], {"a": 0.9}, 0.1),
        ([trial(0.1, 0.97, 0.7), trial(1, 0.5, 0.8)], {"a": 0.9}, 1),
        ([trial(0.1, 0.99, 0.5, 0.5), trial(1, 0.97, 0.8, 0.5)], {"a": 0.8, "b": 0.4}, 1),
    ],
)
def test_choosing_like_the_papers(trials: list[Trial], minimum: dict[str, float], lambda_: float) -> None:
    assert choose_like_the_papers(trials, minimum).lambda_ == lambda_


@pytest.mark.parametrize(
    ("trials", "lambda_"),
    [
        ([trial(0.1, 0.97, 0.96), trial(0.3, 0.98, 1)], 0.1),
        ([trial(0.1, 0.97, 0.8), trial(0.3, 0.96, 1)], 0.3),
        ([trial(0.1, 0.97, 0.5), trial(0.3, 0.96, 0.8)], 0.3),
        ([trial(0.1, 0.97, 1, harm="too many flips"), trial(0.3, 0.96, 0.5)], 0.3),
        ([trial(0.1, 0.96, 1), trial(0.1, 0.97, 1), trial(0.3, 0.98, 1)], 0.1),
    ],
    ids=[
        "the smallest lambda that is likely to reach the aim",
        "a likely trial before a smaller lambda that is not",
        "the shortfall counts if none is likely",
        "harm comes first",
        "mean accuracy decides between learning rates",
    ],
)
def test_ranking_of_unfinished_trials(trials: list[Trial], lambda_: float) -> None:
    best = max(trials, key=lambda trial: ranking_key(trial, {"a": 0.9}, aim=0.995))
    assert best.lambda_ == lambda_
    assert best.validation.value == max(t.validation.value for t in trials if t.lambda_ == lambda_)
