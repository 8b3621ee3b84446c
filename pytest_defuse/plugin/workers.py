"""pytest-xdist: what a worker process knows of its run, and the folder in which workers share predictions."""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_defuse.runtime.sharing import Sharing


def worker_input(config: pytest.Config) -> dict[str, Any]:
    """The values that xdist passes to a worker; empty in a process that is not a worker."""
    values: dict[str, Any] = getattr(config, "workerinput", {})
    return values


def shared_folder(workerinput: dict[str, Any]) -> Path:
    """The folder that all workers of one run share."""
    return Path(tempfile.gettempdir()) / f"pytest-defuse-{workerinput['testrunuid']}"


def sharing(config: pytest.Config) -> "Sharing":
    """How this process shares predictions: with the other workers, or not at all."""
    from pytest_defuse.runtime.sharing import Sharing

    workerinput = worker_input(config)
    if not workerinput:
        return Sharing()
    folder = shared_folder(workerinput)
    folder.mkdir(mode=0o700, exist_ok=True)
    number = re.sub(r"\D", "", workerinput["workerid"])  # gw0, gw1, ...; users may choose other names
    return Sharing(folder, int(number or 0))
