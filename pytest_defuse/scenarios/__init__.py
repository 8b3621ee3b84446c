"""Scenarios on disk: schema, contact sheets, store, decisions, comparison of revisions.

Functions that read files raise StoreError, with one line for each error, where a file is missing
or wrong.
"""
