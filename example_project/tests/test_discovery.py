"""Run with --defuse-discover: search for failures that no test set shows."""


def test_discovery(defuse_discovery):
    """The search itself is sound: the generator keeps what the classifier reads, and the judges are good."""
    assert defuse_discovery.reconstruction_accuracy >= 0.95
    assert min(defuse_discovery.judges.accuracies) >= 0.97
