"""The exceptions that a user reads."""

from pytest_defuse.runtime.escaping import visible


class DefuseError(Exception):
    """Something the user can fix, in one sentence: what is wrong, where, and what to do.

    The pytest layer and the command line print only the message, without a traceback. Names in it may come from any
    file, so it is shown escaped.
    """

    def __str__(self) -> str:
        return visible(super().__str__(), lines=True)


class InconclusiveError(DefuseError):
    """Something that was required cannot be judged, for example because there are too few images."""
