"""A subject, and a scenario that its model classifies incorrectly."""

import copy
from pathlib import Path

import pytest

from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject
from tests.correct.sides import SIDES, Net, planted, sides, trained_net


@pytest.fixture(scope="session")
def trained() -> Net:
    return trained_net()


@pytest.fixture
def subject(trained: Net) -> Subject:
    net = copy.deepcopy(trained)
    net.scale.requires_grad_(False)
    return Subject(name="sides", model=net, classes=SIDES, train=sides(300, seed=0), test=sides(50, seed=1))


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """Misleading images with label left, which the net classifies as right."""
    return planted(Store(tmp_path / "sides"))
