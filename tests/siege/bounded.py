"""Work in a child process with limits of time and memory."""

import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pytest_defuse.runtime.errors import DefuseError

SECONDS, BYTES = 5.0, 2**30


class Outcome(NamedTuple):
    """``value``, ``sentence`` (of an error that the reader documents) or ``failure``, and its text."""

    kind: str
    text: str


class TooSlow(BaseException):
    """Not an Exception: no reader catches it."""


def outcomes(
    works: Iterable[Callable[[], object]],
    documented: tuple[type[Exception], ...] = (),
    seconds: float = SECONDS,
) -> list[Outcome]:
    """What each piece of work ends in, within ``seconds`` and 1 GiB of memory on top of this process's.

    Time is the processor's, because other processes may use this machine.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            _limit_memory()
            found = [_outcome(work, documented, seconds) for work in works]
            with os.fdopen(writer, "wb") as file:
                pickle.dump(found, file)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    assert data, "the process died"
    found: list[Outcome] = pickle.loads(data)
    return found


def _outcome(work: Callable[[], object], documented: tuple[type[Exception], ...], seconds: float) -> Outcome:
    def stop(*_: Any) -> None:
        raise TooSlow

    # Processor time for loops, and ten times as much by the clock for what waits.
    signal.signal(signal.SIGVTALRM, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
    try:
        return Outcome("value", repr(work())[:2000])
    except (DefuseError, *documented) as error:
        return Outcome("sentence", str(error))
    except BaseException as error:  # TooSlow, and whatever else ends the work, is a failure
        place, frame = "", error.__traceback__
        while frame is not None:
            place, frame = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}", frame.tb_next
        return Outcome("failure", f"{type(error).__name__}: {str(error)[:300]} ({place})")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory() -> None:
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
