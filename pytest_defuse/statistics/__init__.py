"""Accuracies, their intervals, significance tests and multiple testing."""
