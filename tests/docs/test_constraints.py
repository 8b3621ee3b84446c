"""`make demo` and `make test` install the versions of constraints.txt, which `make constraints` writes."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "constraints.txt").read_text()
PINS = [Requirement(line) for line in TEXT.splitlines() if not line.startswith("#")]


def required() -> list[Requirement]:
    """What pyproject.toml names, the build's own requirement included."""
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    project = pyproject["project"]
    lists = [pyproject["build-system"]["requires"], project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(line) for lines in lists for line in lines]
    return [requirement for requirement in requirements if requirement.name != project["name"]]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_requirement_has_one_version_everywhere(python: str, platform: str) -> None:
    place = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": platform}
    pins = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(place)]
    versions = {canonicalize_name(pin.name): str(pin.specifier) for pin in pins}
    assert len(versions) == len(pins)
    assert all(version.startswith("==") and "*" not in version for version in versions.values())
    for requirement in required():
        version = versions.get(canonicalize_name(requirement.name), "").removeprefix("==")
        assert version, f"{requirement} has no version: run make constraints"
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_no_address_and_no_path_is_in_the_file() -> None:
    assert "/" not in TEXT
    assert "--" not in TEXT
