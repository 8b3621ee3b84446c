"""The gate with pytest's own features: workers, selection, collection, caches, import modes."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from fnmatch import fnmatch

import pytest

from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.subject.identity import FIXED_IMAGES
from tests.plugin.conftest import CONFTEST, tree

Accept = Callable[..., Scenario]


LAZY = """
import pytest
@pytest.fixture(scope="session")
def defuse_subject():
    from toy import subject
    return subject()
"""

TESTS = """
import pytest

@pytest.mark.defuse(only={covered!r})
def test_scenario(defuse_scenario): defuse_scenario.check()

@pytest.mark.defuse(only={covered!r}, min_accuracy=1.0)
def test_again(defuse_scenario): assert defuse_scenario.accuracy == 1

@pytest.mark.defuse(only={covered!r}, min_accuracy=0.9, per_class=True)
def test_overall(defuse_overall): defuse_overall.check()

def test_accuracy(defuse_test_accuracy): assert defuse_test_accuracy >= 0.97

def test_more(defuse_test_accuracy):
    with pytest.raises(AssertionError, match=r"200/200 = 100.0% .95% interval 98.1% to 100.0%. >= 1.01"):
        assert defuse_test_accuracy >= 1.01
"""


@pytest.fixture
def lazy(project: pytest.Pytester) -> pytest.Pytester:
    """The toy repository; a run that only collects does not import torch."""
    project.makepyfile(toy=CONFTEST)
    project.makeconftest(LAZY)
    return project


@pytest.mark.slow
def test_every_image_goes_through_the_model_once_whoever_runs_the_tests(lazy: pytest.Pytester, accept: Accept) -> None:
    covered = [accept(mean=0.55).id, accept(mean=0.6).id]
    lazy.makepyfile(
        toy=CONFTEST.replace(
            "def forward(self, images):",
            'def forward(self, images):\n        open("passes", "a").write(f"{len(images)}\\n")',
        )
    )
    lazy.makepyfile(test_model=TESTS.format(covered=covered))
    runs: dict[str, tuple[str, ...]] = {
        "plain": ("-p", "no:cacheprovider"),
        "n0": ("-n0",),
        "n2": (
            "-n2",
            "--dist",
            "loadgroup",
            "--strict-markers",
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
        ),
    }
    saved = {}
    for name, arguments in runs.items():
        passes = lazy.path / "passes"
        passes.write_text("")
        before = tree(lazy.path)
        if "--import-mode=importlib" in arguments:
            arguments = (*arguments, f"--override-ini=pythonpath={lazy.path}")
        result = lazy.runpytest(*arguments, f"--defuse-save-baseline=.{name}.json")
        result.assert_outcomes(passed=7)
        sizes = [int(size) for size in passes.read_text().split()]
        assert sum(size for size in sizes if size != FIXED_IMAGES) == 2 * 16 + 200, name
        passes.write_text("")
        assert tree(lazy.path) == before, "a gate writes only the files that its options name"
        saved[name] = json.loads((lazy.path / f".{name}.json").read_text())
    assert sorted(saved["plain"]["subjects"]["toy"]["scenarios"]) == sorted(covered)
    assert all(baseline == saved["plain"] for baseline in saved.values())


def test_what_is_deselected_is_not_uncovered(lazy: pytest.Pytester, accept: Accept) -> None:
    first, second = sorted([accept(mean=0.55).id, accept(mean=0.6).id])
    lazy.makepyfile(test_model="def test_scenario(defuse_scenario): pass")
    result = lazy.runpytest("--collect-only", "-q", "-k", first)
    result.stdout.fnmatch_lines([f"test_model.py::test_scenario?{first}?"])
    assert second not in result.stdout.str()
    some = lazy.runpytest("-k", first)
    assert some.ret == pytest.ExitCode.OK
    assert second not in some.stdout.str()


def test_the_last_failure_is_run_again_alone(lazy: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55), accept(mean=0.45), accept(mean=0.44)
    lazy.makepyfile(
        test_model="""
        import pytest
        @pytest.mark.defuse(min_accuracy=0.9)
        def test_scenario(defuse_scenario): defuse_scenario.check()
        """
    )
    stopped = lazy.runpytest("-x")
    assert stopped.parseoutcomes()["failed"] == 1
    again = lazy.runpytest("--lf")
    again.assert_outcomes(failed=1)
    assert "no test covers" not in stopped.stdout.str() + again.stdout.str()


def test_scenario_files_are_tests_by_opt_in(lazy: pytest.Pytester, accept: Accept) -> None:
    good, bad = accept(mean=0.55), accept(mean=0.45)
    accept(mean=0.44, label=None)
    bad.yaml.write_text(bad.yaml.read_text().replace("bounds: {}", "bounds: {min_accuracy: 0.5}"))
    lazy.makepyfile(test_model="def test_nothing(): pass")
    default = lazy.runpytest("--collect-only", "-q")
    default.stdout.fnmatch_lines(["test_model.py::test_nothing"])
    assert "scenario.yaml" not in default.stdout.str()
    result = lazy.runpytest("-v", "--defuse-collect")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines_random(
        [
            f"fixtures/toy/{good.id}/scenario.yaml::{good.id} *",
            f"fixtures/toy/{bad.id}/scenario.yaml::{bad.id} *",
            f"scenario {bad.id} (label 'bright'): accuracy 0/16 = 0.0% * is below the bound 50.0% (min_accuracy)*",
        ]
    )
    assert "pytest_defuse/" not in result.stdout.str()
    named = lazy.runpytest("--collect-only", "-q", str(good.yaml))
    named.stdout.fnmatch_lines([f"fixtures/toy/{good.id}/scenario.yaml::{good.id}"])
    good.yaml.write_text(good.yaml.read_text() + "bound: 3\n")
    broken = lazy.runpytest("--collect-only", "--defuse-collect")
    broken.stdout.fnmatch_lines(["*scenario.yaml:*bound: is not a known key*"])
    assert "Traceback" not in broken.stdout.str()


def test_inconclusive_is_a_skip_with_its_figures(lazy: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    lazy.makepyfile(
        test_model="""
        import pytest
        pytestmark = pytest.mark.defuse(min_accuracy=0.9, confidence=0.95)
        def test_scenario(defuse_scenario):
            defuse_scenario.check()
        def test_by_hand(defuse_scenario):
            assert defuse_scenario.accuracy >= 0.9
        def test_failed(defuse_scenario):
            assert defuse_scenario.accuracy > 1
        """
    )
    figures = "*accuracy 16/16 = 100.0% *: INCONCLUSIVE, about 35 images would decide."
    result = lazy.runpytest("-v", "--junitxml=junit.xml", "-k", "not failed")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*test_scenario*INCONCLUSIVE*", "*test_by_hand*INCONCLUSIVE*", "*2 skipped*"])
    document = ET.parse(lazy.path / "junit.xml")
    for skipped in document.iter("skipped"):
        assert fnmatch(skipped.get("message", ""), figures)
    assert [suite.get("skipped") for suite in document.iter("testsuite")] == ["2"]
    properties = {(p.get("name"), p.get("value")) for p in document.iter("property")}
    assert ("defuse_outcome", "INCONCLUSIVE") in properties
    quiet = lazy.runpytest("-q", "--no-summary", "-k", "not failed")
    quiet.stdout.fnmatch_lines(["II*", "*2 skipped*"])
    strict = lazy.runpytest("--defuse-strict", "-k", "not failed")
    strict.assert_outcomes(failed=2)
    strict.stdout.fnmatch_lines([f"{figures} --defuse-strict requires a decision."] * 2)
    lazy.runpytest("-k", "failed").assert_outcomes(failed=1)


def test_bounds_come_from_the_file_then_the_marker_then_the_options(lazy: pytest.Pytester, accept: Accept) -> None:
    own, marked = accept(mean=0.55), accept(mean=0.6)
    own.yaml.write_text(own.yaml.read_text().replace("bounds: {}", "bounds: {min_accuracy: 0.25}"))
    lazy.makeini("[pytest]\ndefuse_bounds =\n    min_accuracy = 0.75\n    confidence = 0.8\n")
    lazy.makepyfile(
        test_model=f"""
        import pytest
        BOUNDS = {{{own.id!r}: (0.25, 0.8), {marked.id!r}: (0.5, 0.8)}}
        @pytest.mark.defuse(min_accuracy=0.5)
        def test_marked(defuse_scenario):
            [check] = defuse_scenario.verdict.checks
            assert (check.limit, check.confidence) == BOUNDS[defuse_scenario.id]
        def test_set(defuse_test_accuracy):
            [check] = defuse_test_accuracy.verdict.checks
            assert (check.limit, check.confidence) == (0.75, 0.8)
        """
    )
    lazy.runpytest().assert_outcomes(passed=3)
    wrong = lazy.runpytest("--defuse-bounds=min_acuracy=1")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.fnmatch_lines(["*--defuse-bounds has no setting 'min_acuracy' (did you mean 'min_accuracy'?)*"])
    own.yaml.write_text(own.yaml.read_text().replace("0.25", "25"))
    typo = lazy.runpytest("--collect-only")
    typo.stdout.fnmatch_lines(["*scenario.yaml:*bounds*min_accuracy=25: give a number from 0 to 1*"])


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["plain", "n1"])
def test_a_test_can_record_an_accuracy(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    project.makepyfile(
        test_model="""
        def test_accuracy(defuse_test_accuracy, record_property):
            record_property("accuracy", defuse_test_accuracy)
            assert round(defuse_test_accuracy, 1) == 1
        """
    )
    project.runpytest("--junit-xml=junit.xml", *workers).assert_outcomes(passed=1)
    assert '<property name="accuracy" value="1.0"' in (project.path / "junit.xml").read_text()
