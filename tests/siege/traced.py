"""Work in a child process that is stopped at one of its file operations, which an audit hook counts."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

READS = {"os.listdir", "os.scandir", "os.walk", "os.putenv", "os.unsetenv"}
"""Audit events that change no file. Every other one of these modules with a path below the folder is counted."""
MODULES = ("os.", "shutil.", "tempfile.", "open")


class End(NamedTuple):
    """How the child ended: its exit code, None if it was killed, and what it wrote to stderr."""

    code: int | None
    errors: str


def run(folder: Path, work: Callable[[], int], stop: Callable[[int], None] | None = None) -> End:
    """Do work in ``folder``; ``stop`` is called with the number of each operation, from 0, before it happens."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _child(folder, work, stop, writer)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as file:
        errors = file.read()
    _, status = os.waitpid(child, 0)
    return End(None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), errors)


def kill_at(number: int) -> Callable[[int], None]:
    """Stops with SIGKILL, as the kernel does where memory ends."""

    def stop(operation: int) -> None:
        if operation == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return stop


def fail_at(number: int, error: int, *, again: bool) -> Callable[[int], None]:
    """Lets one operation fail with an error of the disk or, with ``again``, every one from there on."""

    def stop(operation: int) -> None:
        if operation == number or (again and operation > number):
            raise OSError(error, os.strerror(error))

    return stop


def _child(folder: Path, work: Callable[[], int], stop: Callable[[int], None] | None, errors: int) -> None:
    code = 70
    try:
        os.chdir(folder)
        os.dup2(errors, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        if stop:
            _count(str(folder), stop)
        code = work()
    except BaseException:  # whatever ends the work is what the test reads
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _count(folder: str, stop: Callable[[int], None]) -> None:
    operations = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal operations
        if not event.startswith(MODULES) or event in READS:
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        paths = [str(Path(a).absolute()) for a in map(_path, arguments) if a]
        of_open_folder = event.startswith("os.") and any(type(a) is int and a > 2 for a in arguments)
        if of_open_folder or any(path.startswith(folder) for path in paths):
            operations += 1
            stop(operations - 1)

    sys.addaudithook(audit)


def _path(argument: Any) -> str:
    return os.fsdecode(argument) if isinstance(argument, (str, bytes, os.PathLike)) else ""
