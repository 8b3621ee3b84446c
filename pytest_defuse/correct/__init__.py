"""Finetuning on scenarios, and the checkpoints that it writes."""
