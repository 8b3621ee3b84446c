"""The number of examples of a slow property."""

from typing import Any

from hypothesis import settings


def fewer_examples(count: int, **others: Any) -> settings:
    """Settings with ``count`` examples; under another profile than "same", as many as every property has there."""
    profile = settings.default
    return settings(max_examples=count if profile.derandomize else profile.max_examples, **others)
