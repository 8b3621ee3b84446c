"""Run with --defuse-discover: search for failures that the test set does not show."""


def test_discovery(defuse_discovery):
    """Candidates can be trusted: the model reads the generator's reconstructions, and the judges are accurate."""
    assert defuse_discovery.reconstruction_accuracy >= 0.95
    assert min(defuse_discovery.judges.accuracies) >= 0.97
