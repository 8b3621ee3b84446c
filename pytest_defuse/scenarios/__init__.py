"""Scenarios on disk: schema, contact sheets, store, decisions, comparison of revisions."""
