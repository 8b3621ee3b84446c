"""Which scenario files and test functions become tests of a scenario; what was named and is none is an error."""

import shutil
from collections.abc import Callable

import pytest

from pytest_defuse.scenarios.scenario import Scenario

Accept = Callable[..., Scenario]


@pytest.mark.parametrize(("label", "status"), [(None, "candidate"), ("bright", "rejected")])
def test_a_named_file_of_a_scenario_that_is_not_accepted_is_an_error(
    project: pytest.Pytester, accept: Accept, label: str | None, status: str
) -> None:
    good, other = accept(mean=0.55), accept(mean=0.6, label=label, status=status)
    result = project.runpytest(str(good.yaml), str(other.yaml))
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*{other.id}?scenario.yaml has the status '{status}', and only an accepted *"])
    project.runpytest("--defuse-collect", "fixtures").assert_outcomes(passed=1)


def test_an_accepted_scenario_of_another_store_is_an_error(project: pytest.Pytester, accept: Accept) -> None:
    here, there = accept(mean=0.55), accept(mean=0.6)
    candidate = accept(mean=0.58, label=None)
    moved = project.mkdir("other") / "toy"
    for scenario in (there, candidate):
        shutil.move(scenario.folder, moved / scenario.id)
    for arguments in (("--defuse-collect",), (str(here.yaml), str(moved / there.id / "scenario.yaml"))):
        result = project.runpytest(*arguments)
        assert result.ret == pytest.ExitCode.INTERRUPTED
        result.stdout.fnmatch_lines(["*other?toy?*scenario.yaml is not in the store *fixtures: name its own store *"])
        assert result.parseoutcomes()["errors"] == 1
    (moved / there.id / "scenario.yaml").unlink()
    assert project.runpytest("--defuse-collect").ret == pytest.ExitCode.OK


def test_a_store_may_be_named_by_a_link(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.55)
    (project.path / "link").symlink_to("fixtures", target_is_directory=True)
    project.runpytest("--defuse-store=link", str(scenario.yaml)).assert_outcomes(passed=1)
    project.runpytest("--defuse-store=link", "--defuse-collect", "fixtures").assert_outcomes(passed=1)


def test_only_a_test_function_can_test_scenarios(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    project.makepyfile(
        test_model="""
        import unittest
        import pytest

        @pytest.mark.usefixtures("defuse_scenario")
        class TestModel(unittest.TestCase):
            def test_scenario(self): pass

        def test_by_request(request):
            request.getfixturevalue("defuse_scenario")

        @pytest.mark.parametrize("number", [1])
        def test_with_another_parameter(request, number):
            request.getfixturevalue("defuse_scenario")

        class TestMethods:
            def test_scenario(self, defuse_scenario): defuse_scenario.check()
        """
    )
    result = project.runpytest()
    result.assert_outcomes(passed=1, failed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["This test has no scenario: use defuse_scenario as an argument of a test function*"] * 3
    )
    assert "There is no accepted scenario" not in result.stdout.str()
