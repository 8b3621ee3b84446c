"""The results of a run, and how reports render them."""
