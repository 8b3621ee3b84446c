"""A subject, and a scenario that its model classifies incorrectly."""

from pathlib import Path

import pytest

from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject
from tests.correct.sides import Net, planted, subject_of, trained_net


@pytest.fixture(scope="session")
def trained() -> Net:
    return trained_net()


@pytest.fixture
def subject(trained: Net) -> Subject:
    return subject_of(trained)


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """Misleading images with label left, which the net classifies as right."""
    return planted(Store(tmp_path / "sides"))
