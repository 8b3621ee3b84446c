"""The model under test and its data. This fixture is all that pytest-defuse requires from a repository."""

import digits
import pytest

import pytest_defuse


@pytest.fixture(scope="session")
def defuse_subject():
    train, test = digits.datasets()
    return pytest_defuse.Subject(
        name="digits",
        model=digits.trained_net(),
        classes=digits.CLASSES,
        train=train,
        test=test,
        normalize=digits.normalize,
        checkpoint=digits.CHECKPOINT,
    )
