"""The exceptions that a user reads."""


class DefuseError(Exception):
    """Something the user can fix, in one sentence: what is wrong, where, and what to do.

    The pytest layer and the command line print only the message, without a traceback.
    """


class InconclusiveError(DefuseError):
    """Something that was required cannot be judged, for example because there are too few images."""
