"""The model under test, its images, and where it computes."""
