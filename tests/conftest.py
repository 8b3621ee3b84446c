"""What all tests share: an environment that decides nothing, and examples that are the same on any day."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from pytest_defuse.plugin.options import Options

# What a CI service, a shell or git sets for the run that the tests are part of is not theirs, nor is it their
# subprocesses': an inner pytest must not write to a job's summary, and git must find the repository of the test.
OUTSIDE = re.compile(
    r"CI$|CI_|BUILD_NUMBER$|GITHUB_|GITLAB_|RUNNER_|GIT_|DEFUSE_(?!DATA$)|PYTEST_(ADDOPTS|PLUGINS)$"
    r"|FORCE_COLOR$|NO_COLOR$|PY_COLORS$|CLICOLOR|TTY_|COLUMNS$|LINES$"
)
for name in filter(OUTSIDE.match, list(os.environ)):
    del os.environ[name]
os.environ |= {
    "OMP_NUM_THREADS": "1",  # tests are many and small: threads of one would only wait for those of another
    "COLUMNS": "80",  # whatever the width of the terminal
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}

# `make external` has the profile "fuzz".
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
# `make mutants` needs no smaller example of what fails.
settings.register_profile("mutants", settings.get_profile("same"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("same")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Options of a gate without reports."""
    return Options(
        discover=False,
        correct=False,
        store=tmp_path / "fixtures",
        cache=tmp_path / ".defuse_cache",
        device="cpu",
        seed=0,
        report=None,
        summary=None,
        baseline=None,
        save_baseline=None,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files go first, so that two workers end together."""
    items.sort(key=lambda item: item.path.parent.name != "example_project")
