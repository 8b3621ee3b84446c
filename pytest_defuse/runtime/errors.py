"""The one exception that a user is meant to read."""


class DefuseError(Exception):
    """Something the user can mend, in one sentence: what is wrong, where, and what to do.

    The pytest layer and the command line print the message alone, without a traceback.
    """
