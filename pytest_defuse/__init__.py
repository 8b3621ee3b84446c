"""pytest-defuse: model regression testing for image classifiers.

Nothing heavy is imported here: pytest loads this package at every startup. Torch is imported when a test first
requests the model under test.
"""

from typing import TYPE_CHECKING, Any

from pytest_defuse.runtime.errors import DefuseError

if TYPE_CHECKING:
    from pytest_defuse.subject.image_generator import ImageGenerator
    from pytest_defuse.subject.subject import Subject

__all__ = ["DefuseError", "ImageGenerator", "Subject"]


def __getattr__(name: str) -> Any:
    if name == "Subject":
        from pytest_defuse.subject.subject import Subject

        return Subject
    if name == "ImageGenerator":
        from pytest_defuse.subject.image_generator import ImageGenerator

        return ImageGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
