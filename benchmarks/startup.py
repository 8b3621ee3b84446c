"""Claim: in a repository that does not use it, the plugin adds less than 15 ms to ``pytest``.

python benchmarks/startup.py

Runs pytest on one empty test with the plugin and without it (``-p no:defuse``), in turns, and compares the times of the
whole processes. Other processes only ever add time, so of four runs each the fastest counts. Exits with 1 if the claim
does not hold.
"""

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAIRS = 30
RUNS = 4
LIMIT = 0.015


def seconds(folder: Path, *arguments: str) -> float:
    """The time of one pytest process with no third-party plugins except pytest-defuse."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    others = [f"-pno:{name}" for name in ("xdist", "xdist.looponfail", "hypothesispytest", "anyio", "cacheprovider")]
    command = [sys.executable, "-m", "pytest", "-q", *others, *arguments]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> int:
    """Print the table; return 0 if the claim holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text("def test_nothing(): pass\n")
        (folder / "pytest.ini").write_text("[pytest]\n")
        for warm_up in ((), ("-pno:defuse",)):
            seconds(folder, *warm_up)
        pairs = []
        for _ in range(PAIRS):
            times: dict[str, list[float]] = {"with": [], "without": []}
            for run in range(RUNS):
                # The two take turns in going first.
                for kind, arguments in [("with", ()), ("without", ("-pno:defuse",))][:: 1 if run % 2 else -1]:
                    times[kind].append(seconds(folder, *arguments))
            pairs.append({kind: min(values) for kind, values in times.items()})
    differences = sorted(pair["with"] - pair["without"] for pair in pairs)
    cost = statistics.median(differences)
    print(f"pytest on an empty test, {PAIRS} pairs, each the fastest of {RUNS} runs, milliseconds")
    print(f"{'':24}{'median':>9}{'lowest':>9}{'highest':>9}")
    rows = {kind: sorted(pair[kind] for pair in pairs) for kind in ("without", "with")} | {"difference": differences}
    for kind, times in rows.items():
        numbers = (statistics.median(times), times[0], times[-1])
        print(
            f"{kind + (' the plugin' if kind != 'difference' else ''):24}"
            + "".join(f"{1000 * n:9.1f}" for n in numbers)
        )
    # The interval between two order statistics, which holds for a median of any distribution.
    half = round(0.98 * math.sqrt(PAIRS))
    low, high = differences[PAIRS // 2 - half - 1], differences[PAIRS // 2 + half]
    interval = f"95% interval of the median: {1000 * low:.1f} to {1000 * high:.1f} ms"
    print(f"the plugin adds {1000 * cost:.1f} ms ({interval}); claim: less than {1000 * LIMIT:.0f} ms")
    return int(cost >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
