"""Votes on single tiles from annotation services: what is sent there, and what comes back."""
