"""Fifty gates in one process: memory, threads and open files do not grow."""

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_defuse.scenarios.store import Store
from tests.plugin.conftest import CONFTEST, TESTS, sheet, tiles
from tests.scenarios.planting import plant

GATES, WARM = 50, 10
PROGRAM = """
import gc, io, os, sys, threading
from contextlib import redirect_stdout
from pathlib import Path
import pytest

for number in range(int(sys.argv[1])):
    with redirect_stdout(io.StringIO()) as output:
        code = pytest.main(["-q", "-p", "no:cacheprovider", "--defuse-save-baseline=baseline.json",
                            "--defuse-report=report.html", "--defuse-results=results.json"])
    assert code == 0, output.getvalue()
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    print(pages * os.sysconf("SC_PAGE_SIZE") // 1024, threading.active_count(),
          len(os.listdir("/proc/self/task")), files, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_fifty_gates_in_one_process_take_no_more_than_ten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_model.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for seed, mean in enumerate((0.55, 0.6, 0.65)):
        correction, held_out = tiles(mean, 2 * seed), tiles(mean, 2 * seed + 1)
        sheets = {"correction": sheet(correction), "held_out": sheet(held_out)}
        store = Store(tmp_path / "fixtures" / "toy")
        accepted = {"status": "accepted", "label": "bright", "sheets": sheets}
        plant(store, correction, held_out, "bright", "dark", ("dark", "bright"), **accepted)
    command = [sys.executable, "-c", PROGRAM, str(GATES)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = [[int(figure) for figure in line.split()] for line in run.stdout.splitlines()]
    assert len(figures) == GATES
    warm, last = figures[WARM - 1], figures[-1]
    with capsys.disabled():
        print(f"gates {WARM} and {GATES}: {warm} and {last} (KiB, threads of Python, of the system, open files)")
    assert last[0] - warm[0] < 200 * (GATES - WARM), "200 KiB a gate"
    assert last[1:] == warm[1:]
