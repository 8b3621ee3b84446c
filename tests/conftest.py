"""What all tests share."""

import pytest
import torch

# Tests are many and small: threads of one would only wait for those of another.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the options or the job summary of the run that it is part of."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("DEFUSE_STORE", "DEFUSE_SEED", "DEFUSE_DEVICE", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file goes first, so that two workers end together."""
    items.sort(key=lambda item: item.path.name != "test_example.py")
