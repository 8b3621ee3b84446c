"""The gate: what this model must never get wrong again, and how good it must be."""

import pytest


@pytest.mark.defuse(min_accuracy=0.9)
def test_scenario(defuse_scenario):
    """One test for each accepted scenario, on pictures that correction never sees."""
    defuse_scenario.check()


def test_accuracy(defuse_test_accuracy):
    assert defuse_test_accuracy >= 0.96
