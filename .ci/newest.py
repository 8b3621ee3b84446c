"""Run the fast tests with the newest version of every dependency, in an environment that is deleted afterwards.

Packages that .venv has in their newest version are used from there; the others are installed into another folder. Run
it as make test-newest.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(sys.prefix) / "newest"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "install")


def newer() -> dict[str, str]:
    """The packages that a fresh installation would have in another version than .venv, and that version."""
    resolve = (*PIP, "--dry-run", "--upgrade", "--upgrade-strategy", "eager", "--report", "-", "--editable", ".[dev]")
    report = json.loads(subprocess.run([sys.executable, *resolve], check=True, stdout=subprocess.PIPE).stdout)
    found = {item["metadata"]["name"]: item["metadata"]["version"] for item in report["install"]}
    return {name: number for name, number in found.items() if name != "pytest-defuse"}


def present(name: str) -> str:
    """The version in .venv."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "nothing"


def main() -> int:
    """Say what is newer, and run the tests with it; their exit code."""
    packages = newer()
    for name, number in packages.items():
        print(f"newest: {name} {number} instead of {present(name)}", flush=True)
    print(f"newest: {len(packages)} packages differ from constraints.txt", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
        source = sysconfig.get_path("purelib")
        target = Path(sysconfig.get_path("purelib", vars={"base": FOLDER, "platbase": FOLDER}))
        # Unlike a plain path, this also reads the .pth files in it, such as that of the editable installation.
        (target / "venv.pth").write_text(f"import site; site.addsitedir({source!r})\n")
        python = FOLDER / "bin" / "python"
        pins = [f"{name}=={number}" for name, number in packages.items()]
        if pins:
            subprocess.run([python, *PIP, "--no-deps", *pins], check=True)
        return subprocess.run(["make", "-o", ".venv/ready", "fast", f"BIN={python.parent}"], check=False).returncode
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
