"""Labelling candidates by hand: what a decision is, and a local page to take it on."""
