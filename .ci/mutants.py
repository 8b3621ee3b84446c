"""Mutation testing: change the code at one place, and see whether a test fails. Run it as make mutants.

Cosmic Ray lists and makes the mutants. The sample has 300 of them, at most one for each place in the code, chosen by a
hash of the seed and the text of the line: it changes only where the code does. Left out are mutants that are not valid
Python, and two kinds that cannot change behaviour: of a union in an annotation (``int | None``), and of a ``*`` between
parameters.

Two processes each have a copy of the repository and run the fast tests of the mutant's room in it: those of its module
first. A mutant is killed when a test fails, or when the tests take 30 seconds more than three times as
long as without it. Exits with 1 if less than 90% are killed. Arguments are patterns of places ("pytest_defuse/gate/*",
"*/checks.py:47"): only the mutants of the sample at these places are run.
"""

import ast
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from difflib import ndiff
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(".venv/mutants").resolve()))  # at the end: the tests use the versions in .venv
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code, use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec

SEED, SAMPLE, MINIMUM, PROCESSES = 0, 300, 0.9, 2

OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not external", "--hypothesis-profile", "mutants")

ROOMS = {
    "gate": (
        ["pytest_defuse/gate/**/*.py"],
        ["tests/gate/test_*.py", "tests/plugin/test_run.py", "tests/report/test_results.py"],
    ),
    "statistics": (["pytest_defuse/statistics/**/*.py"], ["tests/statistics/test_*.py", "tests/gate/test_checks.py"]),
    "scenarios": (["pytest_defuse/scenarios/**/*.py"], ["tests/scenarios/test_*.py"]),
    "checkpoints": (
        [
            "pytest_defuse/correct/checkpoints.py",
            "pytest_defuse/correct/judgement.py",
            "pytest_defuse/runtime/cache.py",
            "pytest_defuse/runtime/state_files.py",
        ],
        [
            "tests/correct/test_checkpoints.py",
            "tests/correct/test_judgement.py",
            "tests/runtime/test_cache.py",
            "tests/runtime/test_state_files.py",
        ],
    ),
}
"""The modules of each room, and the tests that run against each of them."""


def paths(patterns: list[str]) -> list[Path]:
    """The files that match any of the patterns."""
    return sorted(path for pattern in patterns for path in Path().glob(pattern))


def place(mutation: MutationSpec) -> str:
    """The file and line of a mutant."""
    return f"{mutation.module_path}:{mutation.start_pos[0]}"


def is_valid(source: str) -> bool:
    """Whether a mutant is Python at all."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def can_matter(source: str, mutation: MutationSpec) -> bool:
    """Whether the mutant changes more than a union in an annotation or a ``*`` between parameters."""
    if not mutation.operator_name.startswith("core/ReplaceBinaryOperator"):
        return True
    nodes = list(ast.walk(ast.parse(source)))
    expressions = [node for node in nodes if isinstance(node, ast.BinOp | ast.AugAssign)]
    annotations = [getattr(node, name, None) for node in nodes for name in ("annotation", "returns")]
    return _inside(mutation, expressions) and not _inside(mutation, filter(None, annotations))


def _inside(mutation: MutationSpec, nodes: Iterable[Any]) -> bool:
    return any(
        (node.lineno, node.col_offset) <= mutation.start_pos < (node.end_lineno, node.end_col_offset) for node in nodes
    )


def mutants() -> Iterator[MutationSpec]:
    """All mutants in the order of their hashes, one for each place."""
    with tempfile.TemporaryDirectory() as folder:
        database = WorkDB(Path(folder) / "session.sqlite", WorkDB.Mode.create)
        init([path for modules, _ in ROOMS.values() for path in paths(modules)], database, {})
        found = [item.mutations[0] for item in database.work_items]
        database.close()
    found.sort(key=lambda mutation: (str(mutation.module_path), mutation.operator_name, mutation.occurrence))
    lines = {path: Path(path).read_text().splitlines() for path in {mutation.module_path for mutation in found}}
    seen: Counter[str] = Counter()
    ranked = []
    for mutation in found:
        line = lines[mutation.module_path][mutation.start_pos[0] - 1]
        column = mutation.start_pos[1] - len(line)
        name = f"{SEED} {mutation.definition_name} {line.strip()} {column} {mutation.operator_name}"
        seen[name] += 1
        ranked.append((hashlib.sha256(f"{name} {seen[name]}".encode()).digest(), mutation))
    places = set()
    for _, mutation in sorted(ranked, key=lambda pair: pair[0]):
        if (mutation.module_path, mutation.start_pos) not in places:
            places.add((mutation.module_path, mutation.start_pos))
            yield mutation


def sample() -> list[tuple[str, MutationSpec]]:
    """The mutants to run, with their rooms."""
    rooms = {path: room for room, (modules, _) in ROOMS.items() for path in paths(modules)}
    chosen: list[tuple[str, MutationSpec]] = []
    for mutation in mutants():
        source = Path(mutation.module_path).read_text()
        mutated = mutate_code(source, get_operator(mutation.operator_name)(), mutation.occurrence)
        if mutated is not None and is_valid(mutated) and can_matter(source, mutation):
            chosen.append((rooms[Path(mutation.module_path)], mutation))
        if len(chosen) == SAMPLE:
            break
    return chosen


def work_in_a_copy(folder: str) -> None:
    """Copy the working tree for this process, and import what most tests import: each run of them is a fork of it."""
    copy = Path(tempfile.mkdtemp(dir=folder))
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0"):
        if Path(name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, copy / name)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ |= {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True  # two mutants of one second would share it
    for package in ("torch", "torchvision", "scipy.stats", "sklearn", "pydantic", "hypothesis"):
        import_module(package)


def run_tests(room: str, module: str = "", timeout: float | None = None) -> str:
    """Run a room's tests, first those of the module by name, then by import: "survived", "killed" or "timeout"."""
    name = Path(module).stem

    def distance(path: Path) -> int:
        named = path.stem.startswith((f"test_{name}", f"test_{Path(module).parent.name}"))
        return 0 if named else 1 if f".{name} import" in path.read_text() else 2

    tests = sorted(paths(ROOMS[room][1]), key=distance)
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(list(map(str, tests)),))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        return "timeout"
    return "killed" if process.exitcode else "survived"


def _pytest(tests: list[str]) -> None:
    os.setsid()  # a process group that a timeout can end as a whole
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.exit(pytest.main([*OPTIONS, *tests]))


def seconds_without(room: str) -> float:
    """How long the tests of a room take without a mutant."""
    started = time.monotonic()
    if run_tests(room) != "survived":
        raise RuntimeError(f"the tests of {room} fail without a mutant")
    return time.monotonic() - started


def judge(room: str, mutation: MutationSpec, timeout: float) -> tuple[str, str]:
    """How the tests of the mutant end, and its changed line."""
    operator = get_operator(mutation.operator_name)()
    with use_mutation(mutation.module_path, operator, mutation.occurrence) as (before, after):
        changed = [line for line in ndiff(before.splitlines(), after.splitlines()) if line.startswith("+ ")]
        return run_tests(room, mutation.module_path, timeout), " ".join(line[1:].strip() for line in changed)


def main(*patterns: str) -> int:
    """Run the sample, print what is killed in each room and each survivor, and return the exit code."""
    started = time.monotonic()
    chosen = [item for item in sample() if not patterns or any(fnmatch(place(item[1]), p) for p in patterns)]
    killed: Counter[str] = Counter()
    survivors = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(PROCESSES, None, work_in_a_copy, (folder,)) as pool,
    ):
        rooms = list(dict.fromkeys(room for room, _ in chosen))
        durations = dict(zip(rooms, pool.map(seconds_without, rooms), strict=True))
        print("seconds without a mutant:", {room: round(duration) for room, duration in durations.items()}, flush=True)
        jobs = {
            pool.submit(judge, room, mutation, 3 * durations[room] + 30): (room, mutation) for room, mutation in chosen
        }
        for number, job in enumerate(as_completed(jobs), 1):
            (room, mutation), (outcome, line) = jobs[job], job.result()
            text = f"{place(mutation)} {mutation.operator_name.removeprefix('core/')}: {line}"
            print(number, outcome, text, flush=True)
            if outcome == "survived":
                survivors.append(text)
            else:
                killed[room] += 1
    totals = Counter(room for room, _ in chosen)
    for room, total in totals.items():
        print(f"{room}: {killed[room]} of {total} mutants killed")
    print(f"all: {killed.total()} of {totals.total()} killed in {(time.monotonic() - started) / 60:.0f} minutes")
    print("survivors:", *sorted(survivors), sep="\n")
    return int(killed.total() < MINIMUM * totals.total())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
