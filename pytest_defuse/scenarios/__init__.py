"""Scenarios on disk: schema, contact sheets, store."""
