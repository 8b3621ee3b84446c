"""The fixtures. run.py computes their values, and imports the engine when a test first uses one."""

from typing import TYPE_CHECKING

import pytest

from pytest_defuse.plugin.markers import bounds_of, marker_values, requested_bounds, scenario_of
from pytest_defuse.plugin.session import record
from pytest_defuse.plugin.stash import FOREIGN, SESSION
from pytest_defuse.runtime.errors import DefuseError

if TYPE_CHECKING:
    from pytest_defuse.discover.discovery import Discovery
    from pytest_defuse.explain.failure_modes import FailureModes
    from pytest_defuse.gate.gate import GatedAccuracy, GatedScenario
    from pytest_defuse.plugin.run import SubjectRun
    from pytest_defuse.subject.subject import Subject


@pytest.fixture(scope="session")
def defuse_subject() -> "Subject":
    """The model under test and its data. Override this in conftest.py."""
    raise DefuseError(
        "There is no model to test: in conftest.py, write a session fixture defuse_subject that returns "
        "pytest_defuse.Subject(name=..., model=..., classes=..., train=..., test=...)."
    )


@pytest.fixture
def defuse_run(request: pytest.FixtureRequest, defuse_subject: "Subject") -> "SubjectRun":
    """The subject in this session, shared by the other fixtures and by all tests of the subject."""
    session = request.config.stash[SESSION]
    if run := session.run_of(defuse_subject, request.node):
        return run
    run = session.start(defuse_subject, request.node)
    # Finalizers run in reverse order: before the teardown of defuse_subject, which may remove its data.
    subject = request._get_active_fixturedef("defuse_subject")
    subject.addfinalizer(lambda: session.examine(run, request.session))
    return run


@pytest.fixture
def defuse_scenario(request: pytest.FixtureRequest, defuse_run: "SubjectRun") -> "GatedScenario":
    """An accepted scenario with the model's predictions on its held-out tiles; one test item per scenario."""
    from pytest_defuse.gate.gate import GatedScenario

    scenario, subject = scenario_of(request.node), defuse_run.subject
    if scenario is None:
        raise DefuseError(
            "This test has no scenario: use defuse_scenario as an argument of a test function, which gets one item per "
            "scenario, not in a unittest.TestCase or through request.getfixturevalue."
        )
    if scenario.subject != subject.name:
        request.node.stash[FOREIGN] = True
        if request.config.stash[SESSION].one_subject:
            raise DefuseError(
                f"Scenario {scenario.id} is of subject {scenario.subject!r}, and this run tests the model of "
                f"{subject.name!r} only: rename the folder in the store with the subject, or name the test's scenarios "
                "with defuse(only=...)."
            )
        pytest.skip(f"scenario of subject {scenario.subject!r}; this test's defuse_subject is {subject.name!r}")
    verdict = defuse_run.gate(scenario, bounds_of(request.node))
    record(request.node, verdict, *defuse_run.models)
    return GatedScenario(scenario, verdict, defuse_run.options.first_run)


@pytest.fixture
def defuse_overall(request: pytest.FixtureRequest, defuse_run: "SubjectRun") -> "GatedAccuracy":
    """Accuracy on all accepted scenarios of the subject together; has the methods of ``defuse_test_accuracy``."""
    from pytest_defuse.gate.gate import GatedAccuracy

    verdict = defuse_run.gate_all(requested_bounds(request.node))
    record(request.node, verdict, *defuse_run.models)
    return GatedAccuracy.of(verdict, defuse_run.options.first_run)


@pytest.fixture
def defuse_test_accuracy(request: pytest.FixtureRequest, defuse_run: "SubjectRun") -> "GatedAccuracy":
    """Accuracy on the test set: compares like a number, prints its interval; ``check()`` evaluates the bounds."""
    from pytest_defuse.gate.gate import GatedAccuracy

    verdict = defuse_run.gate_test(requested_bounds(request.node))
    record(request.node, verdict, *defuse_run.models)
    return GatedAccuracy.of(verdict, defuse_run.options.first_run)


@pytest.fixture
def defuse_discovery(request: pytest.FixtureRequest) -> "Discovery":
    """A discovery on the model under test; skipped without --defuse-discover."""
    if not request.config.stash[SESSION].options.discover:
        pytest.skip("discovery runs with --defuse-discover")
    run: SubjectRun = request.getfixturevalue("defuse_run")
    discovery, result = run.discover(marker_values(request.node, "defuse_discover"))
    record(request.node, result)
    return discovery


@pytest.fixture
def defuse_failure_modes(request: pytest.FixtureRequest, defuse_run: "SubjectRun") -> "FailureModes":
    """Failure modes (Barlow): rules on visual features associated with the model's failures on its test set.

    With --defuse-discover each also becomes a candidate scenario of real images.
    """
    explanation, result = defuse_run.explain(marker_values(request.node, "defuse_explain"))
    record(request.node, result)
    return explanation.tested
