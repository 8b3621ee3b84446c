"""A model held against scenarios, bounds and a baseline."""
