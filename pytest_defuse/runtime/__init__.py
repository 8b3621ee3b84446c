"""What every room needs: errors, progress, files, caching, shared work and randomness."""
