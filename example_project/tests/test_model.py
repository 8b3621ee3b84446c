"""The gate: scenarios that the model must not fail again, and the accuracy that it must have."""

import pytest


@pytest.mark.defuse(min_accuracy=0.9)
def test_scenario(defuse_scenario):
    """One test for each accepted scenario, on images that correction does not use."""
    defuse_scenario.check()


def test_accuracy(defuse_test_accuracy):
    assert defuse_test_accuracy >= 0.96
