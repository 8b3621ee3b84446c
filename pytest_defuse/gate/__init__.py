"""A model evaluated against bounds and a baseline, on scenarios and on the test set."""
