"""Finetuning on scenarios, and the corrected checkpoints."""
