"""The whole workflow on a copy of the example project: ``make demo``.

The gate fails, discovery finds more failures, one of them is labelled, correction fixes the model, and the gate passes.
Only files in .demo/ are written.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO = REPOSITORY / ".demo"
PROJECT = DEMO / "example_project"
STORE = DEMO / "fixtures" / "digits"
CORRECTED = PROJECT / "digits.defused.safetensors"


def main() -> None:
    copy_project()
    say("1. The gate. The model fails ten scenarios of 256 images each, which a person has labelled,")
    say("   although its accuracy on the test set is above its bound.")
    run("pytest", "--tb=no", "tests/test_model.py", expect=1)

    say("2. Discovery, with another seed than the one that found these ten. It trains a generator and three judges,")
    say("   reference classifiers that give a second opinion; then it searches, and confirms what it found on fresh")
    say("   draws. This takes some minutes; a second run uses the trained networks again.")
    known = set(STORE.glob("*/"))
    run("pytest", "--defuse-discover", "--defuse-seed=1", "tests/test_discovery.py", expect=0)
    candidates = sorted(set(STORE.glob("*/")) - known)

    say("3. You label the candidates: look at the images of each one, then accept or reject it.")
    if candidates:
        label = proposed_label(candidates[0])
        say(f"   The demo accepts the judges' proposal for one of {len(candidates)} candidates:")
        run("pytest-defuse", "label", candidates[0].name, "--label", label, expect=0)
    else:
        say("   This search found no new candidate, so there is nothing to label.")

    say("4. Correction: finetunes the model, gates it, and writes it because it meets every bound.")
    run("pytest", "--defuse-correct", "--defuse-report=report.html", "tests/test_model.py", expect=0)

    say("5. The corrected weights replace the old ones, and the gate passes.")
    shutil.copy(CORRECTED, PROJECT / "digits.safetensors")
    run("pytest", "-q", "tests/test_model.py", expect=0)

    before_and_after()
    say(f"The corrected checkpoint: {relative(CORRECTED)}")
    say(f"The HTML report:          {relative(PROJECT / 'report.html')}")
    say(f"The scenarios:            {relative(STORE)}")


def copy_project() -> None:
    """Copy the example project to .demo/, and keep the networks that an earlier demo trained."""
    cache, kept = PROJECT / ".defuse_cache", DEMO / "cache"
    if cache.exists():
        shutil.rmtree(kept, ignore_errors=True)
        cache.rename(kept)
    for name in ("example_project", "fixtures"):
        shutil.rmtree(DEMO / name, ignore_errors=True)
        ignored = shutil.ignore_patterns(".*", "__pycache__", "*.defused.safetensors")
        shutil.copytree(REPOSITORY / name, DEMO / name, ignore=ignored)
    if kept.exists():
        kept.rename(cache)


def run(*command: str, expect: int) -> None:
    """Print a command and run it in the project; stop if its exit code is not the expected one."""
    print(f"\n$ {' '.join(command)}", flush=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DEFUSE_", "PYTEST_"))}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    code = subprocess.run(command, cwd=PROJECT, env=environment).returncode
    if code != expect:
        sys.exit(f"demo: {' '.join(command)} ended with exit code {code}, not {expect}")


def proposed_label(candidate: Path) -> str:
    """The label that the judges propose for a candidate."""
    lines = (candidate / "scenario.yaml").read_text().splitlines()
    return json.loads(next(line for line in lines if line.startswith("proposed_label:")).partition(":")[2])


def before_and_after() -> None:
    """Print the accuracies that are stored in the corrected checkpoint."""
    with safe_open(CORRECTED, framework="numpy") as checkpoint:
        accuracies = json.loads(checkpoint.metadata()["pytest-defuse"])["accuracy before, control, after"]
    print(f"\n{'accuracy, %':<32}{'before':>8}{'control':>8}{'after':>8}")
    for name, figures in accuracies.items():
        print(f"{name:<32}" + "".join(f"{figure:>8.1%}" for figure in figures))
    print()


def say(text: str) -> None:
    print(text if text.startswith("  ") or text[0].isalpha() else f"\n{text}", flush=True)


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
