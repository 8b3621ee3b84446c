"""The subject of these tests, explained once."""

import pytest

from pytest_defuse import Subject
from pytest_defuse.explain import Explanation, explain
from tests.explain.spots import spots


@pytest.fixture(scope="session")
def subject() -> Subject:
    return spots()


@pytest.fixture(scope="session")
def explanation(subject: Subject) -> Explanation:
    return explain(subject, subject.classifier())
