"""Progress of long work: a live bar on a terminal, lines in a log."""

import re
from contextlib import nullcontext

import pytest

from pytest_defuse.plugin.progress import VisibleProgress


@pytest.mark.parametrize("variable", ["TERM", "FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_log_has_lines_without_escapes_whatever_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, "1")
    with VisibleProgress(nullcontext).task("search", 3) as advance:
        advance(3, "2 found")
    assert re.fullmatch(r"\ndefuse: search\ndefuse: search: 3 done in [0-9.]+ s, 2 found\n", capsys.readouterr().out)
