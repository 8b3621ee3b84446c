"""A run's results, and their renderings."""
