"""Shared by all layers: errors, progress, files, caching, shared work and randomness."""
