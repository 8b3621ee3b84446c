"""pytest-defuse: model regression testing for image classifiers.

Nothing heavy is imported here: pytest loads this package at every start-up, torch is
loaded when a test first asks for the model under test.
"""

from typing import TYPE_CHECKING, Any

from pytest_defuse.errors import DefuseError

if TYPE_CHECKING:
    from pytest_defuse.subject import Subject

__all__ = ["DefuseError", "Subject"]


def __getattr__(name: str) -> Any:
    if name == "Subject":
        from pytest_defuse.subject import Subject

        return Subject
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
