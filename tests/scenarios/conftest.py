import shutil
from pathlib import Path

import pytest

from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from tests.scenarios.old_stores import SAMPLES
from tests.scenarios.planting import FIRST, SECOND, plant


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one candidate: 3s that are taken for 5s."""
    store = Store(tmp_path / "fixtures" / "digits")
    plant(store, FIRST, SECOND)
    return store


@pytest.fixture
def scenario(store: Store) -> Scenario:
    return store.scenarios()[0]


@pytest.fixture
def old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    """A copy of the store that was written in an old format."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copytree(SAMPLES / request.param, tmp_path / "fixtures")
    monkeypatch.chdir(tmp_path)
    return Store(Path("fixtures/digits"))
