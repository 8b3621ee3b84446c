"""Claim: a repository that does not use the fixtures pays less than 15 ms for the plugin in a plain ``pytest``.

python benchmarks/startup.py

Runs pytest on one empty test, with the plugin and without (``-p no:defuse``), in turn, and compares the times of
whole processes. Ends with 1 where the claim does not hold.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAIRS = 20
LIMIT = 0.015


def seconds(folder: Path, *arguments: str) -> float:
    """How long one pytest process takes; only pytest-defuse is loaded beside pytest's own plugins."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    others = [f"-pno:{name}" for name in ("xdist", "xdist.looponfail", "hypothesispytest", "anyio", "cacheprovider")]
    command = [sys.executable, "-m", "pytest", "-q", *others, *arguments]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> int:
    """Print the table; 0 where the claim holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text("def test_nothing(): pass\n")
        (folder / "pytest.ini").write_text("[pytest]\n")
        for warm_up in ((), ("-pno:defuse",)):
            seconds(folder, *warm_up)
        pairs = []
        for number in range(PAIRS):
            # Which of the two goes first alternates.
            order = [("with", ()), ("without", ("-pno:defuse",))][:: 1 if number % 2 else -1]
            pairs.append({kind: seconds(folder, *arguments) for kind, arguments in order})
    differences = sorted(pair["with"] - pair["without"] for pair in pairs)
    cost = statistics.median(differences)
    print(f"plain pytest, {PAIRS} pairs of runs, milliseconds")
    print(f"{'':24}{'median':>9}{'lowest':>9}{'highest':>9}")
    rows = {kind: sorted(pair[kind] for pair in pairs) for kind in ("without", "with")} | {"difference": differences}
    for kind, times in rows.items():
        numbers = (statistics.median(times), times[0], times[-1])
        print(
            f"{kind + (' the plugin' if kind != 'difference' else ''):24}"
            + "".join(f"{1000 * n:9.1f}" for n in numbers)
        )
    print(f"the plugin costs {1000 * cost:.1f} ms; claimed: less than {1000 * LIMIT:.0f} ms")
    return int(cost >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
