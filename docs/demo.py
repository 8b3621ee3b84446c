"""The whole story on a copy of the example project: ``make demo``.

The gate fails, discovery finds more failures, one is labelled, correction fixes the model, the gate passes.
Nothing outside .demo/ is written.
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
    say("1. The gate. Ten scenarios, labelled by looking at them, 256 pictures each: the model fails them,")
    say("   although its accuracy on the test set is within its bound.")
    run("pytest", "--tb=no", "tests/test_model.py", expect=1)

    say("2. Discovery, with another seed than the one that found those ten: trains a generator and three judges,")
    say("   searches, and confirms on fresh draws. It takes some minutes; a second run trains nothing again.")
    known = set(STORE.glob("*/"))
    run("pytest", "--defuse-discover", "--defuse-seed=1", "tests/test_discovery.py", expect=0)
    candidates = sorted(set(STORE.glob("*/")) - known)

    say("3. Labels are yours to give: look at the pictures of a candidate, then accept or reject it.")
    if candidates:
        label = proposed_label(candidates[0])
        say(f"   Here the demo takes the judges' proposal for one of {len(candidates)} candidates:")
        run("pytest-defuse", "label", candidates[0].name, "--label", label, expect=0)
    else:
        say("   This search found no further candidate, so there is nothing to label.")

    say("4. Correction: finetunes, gates the corrected model, and writes it because every bound holds.")
    run("pytest", "--defuse-correct", "--defuse-report=report.html", "tests/test_model.py", expect=0)

    say("5. The corrected weights take the place of the old ones, and the plain gate passes.")
    shutil.copy(CORRECTED, PROJECT / "digits.safetensors")
    run("pytest", "-q", "tests/test_model.py", expect=0)

    before_and_after()
    say(f"The corrected checkpoint: {shown(CORRECTED)}")
    say(f"The report, for a browser: {shown(PROJECT / 'report.html')}")
    say(f"The scenarios:             {shown(STORE)}")


def copy_project() -> None:
    """A fresh copy in .demo/, with the networks that an earlier demo trained."""
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
    """Show a command and run it as one would in the project; stop when it ends otherwise than expected."""
    print(f"\n$ {' '.join(command)}", flush=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DEFUSE_", "PYTEST_"))}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    code = subprocess.run(command, cwd=PROJECT, env=environment).returncode
    if code != expect:
        sys.exit(f"demo: {' '.join(command)} ended with exit code {code}, not {expect}")


def proposed_label(candidate: Path) -> str:
    """What the judges see in a candidate."""
    lines = (candidate / "scenario.yaml").read_text().splitlines()
    return json.loads(next(line for line in lines if line.startswith("proposed_label:")).partition(":")[2])


def before_and_after() -> None:
    """The figures that the corrected checkpoint carries."""
    with safe_open(CORRECTED, framework="numpy") as checkpoint:
        accuracies = json.loads(checkpoint.metadata()["pytest-defuse"])["accuracy before, control, after"]
    print(f"\n{'accuracy, %':<32}{'before':>8}{'control':>8}{'after':>8}")
    for name, figures in accuracies.items():
        print(f"{name:<32}" + "".join(f"{figure:>8.1%}" for figure in figures))
    print()


def say(text: str) -> None:
    print(text if text.startswith("  ") or text[0].isalpha() else f"\n{text}", flush=True)


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
